"""An init that somebody took over: whatever it sends, the worker keeps its descriptors, its memory and its pace.

The init here is the other end of a socket pair, which answers what a test tells it to.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.security import labs
from traforo.domain import errors, states
from traforo.wire import init_messages as wire
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, connections, inits, spawners, watches

Answer = tuple[bytes, Sequence[int]]
Script = Callable[[wire.Message], Sequence[Answer]]


@dataclass
class Hostile:
    """One end of the pair, and what it does with a request."""

    end: socket.socket
    theirs: int
    script: Script = lambda message: []
    heard: list[wire.Message] = field(default_factory=list)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Say something, with descriptors."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.end, [data], list(descriptors))

    def listen(self) -> None:
        """Answer one request."""
        try:
            data = self.end.recv(wire.MSG_MAX)
        except (BlockingIOError, ConnectionResetError):
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self.end.fileno())
            return
        message = wire.decode(data)
        self.heard.append(message)
        for answer, descriptors in self.script(message):
            self.send(answer, descriptors)


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        peer = Hostile(ours, theirs.detach())
        asyncio.get_running_loop().add_reader(ours.fileno(), peer.listen)
        yield peer
        asyncio.get_running_loop().remove_reader(ours.fileno())


@pytest.fixture
async def taken(hostile: Hostile) -> AsyncIterator[inits.Sandbox]:
    """A sandbox whose init is the hostile one."""
    namespaces = connections.Namespaces()
    namespaces.refused = True  # else the network of process 1 would be that of the host
    sandbox = inits.Sandbox(
        "sbx_hostile",
        hostile.theirs,
        pid=1,
        label=b"",
        deadline=None,
        spawner=_no_spawner,
        oom_file=None,
        namespaces=namespaces,
    )
    hostile.send(wire.message(wire.Type.READY, 0))
    await sandbox.ready
    yield sandbox
    sandbox.channel.close()


def _no_spawner() -> spawners.Spawner:
    raise AssertionError("nobody asked for the spawner")


def _ok(message: wire.Message, *fields: bytes) -> bytes:
    return wire.message(wire.Type.OK, message.request_id, *fields)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Count:
    """Descriptors of this process, to see that a channel leaves none behind."""

    def __init__(self) -> None:
        self.before = _descriptors()

    async def none_left(self, sandbox: inits.Sandbox) -> None:
        """Close the channel: then its socket is gone, and everything that came through it."""
        sandbox.channel.close()

        async def gone() -> bool:
            return _descriptors() < self.before

        with contextlib.suppress(TimeoutError):  # what is strange may be closed by somebody who has time
            await asyncio.wait_for(labs.eventually(gone), 10)
        assert _descriptors() < self.before


def _files(number: int) -> list[int]:
    return [os.open("/etc/passwd", os.O_RDONLY) for _ in range(number)]


def _pipes(number: int) -> list[int]:
    return [end for _ in range(number // 2) for end in os.pipe()]


def _devices(number: int) -> list[int]:
    return [os.open("/dev/zero", os.O_RDONLY) for _ in range(number)]


def _sockets(number: int) -> list[int]:
    return [end.detach() for _ in range(number // 2) for end in socket.socketpair()]


def _directories(number: int) -> list[int]:
    return [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(number)]


KINDS: dict[str, Callable[[int], list[int]]] = {
    "files": _files,
    "pipes": _pipes,
    "devices": _devices,
    "sockets": _sockets,
    "directories": _directories,
}


@contextlib.contextmanager
def some(kind: str, number: int) -> Iterator[list[int]]:
    """Have so many descriptors of a kind for a while."""
    found = KINDS[kind](number)
    try:
        yield found
    finally:
        for descriptor in found:
            os.close(descriptor)


ASKS: dict[str, Callable[[inits.Sandbox], Awaitable[object]]] = {
    "open": lambda box: box.files.open("/f", os.O_RDONLY, user="root"),
    "stat": lambda box: box.files.stat("/f", user="root"),
    "list": lambda box: box.files.list("/f", user="root", recursive=False, limit=10),
    "mkdir": lambda box: box.files.mkdir("/f", user="root", parents=False),
    "remove": lambda box: box.files.remove("/f", user="root", recursive=False),
    "rename": lambda box: box.files.rename("/f", "/g", user="root"),
    "change": lambda box: box.files.change("/f", user="root", mode=0o600),
    "symlink": lambda box: box.files.symlink("to", "/f", user="root"),
    "link": lambda box: box.files.link("/f", "/g", user="root"),
    "watch": lambda box: box.files.watch("/f", user="root", recursive=True),
    "connect": lambda box: box.connect(80),
    "connect by name": lambda box: box.connect("name"),
    "usage": lambda box: box.usage(),
    "exec": lambda box: box.exec(contract.ExecStart(b"", ["true"], {})),
    "terminal": lambda box: box.exec(contract.ExecStart(b"", ["true"], {}, terminal=contract.TerminalSize())),
    "execs": lambda box: box.execs(),
}


async def _outcome(asked: Awaitable[object]) -> object:
    """Wait for an answer; an error of the domain is one, and so is what went wrong on the wire."""
    try:
        return await asyncio.wait_for(asked, 5)
    except (errors.TraforoError, wire.MalformedMessage) as error:
        return error


def _close_streams(answer: object) -> None:
    if isinstance(answer, inits.Exec):
        for descriptor in (answer.stdout, answer.stderr, answer.stdin):
            if descriptor >= 0:
                os.close(descriptor)
    elif isinstance(answer, watches.Watch):
        answer.end()
    elif isinstance(answer, socket.socket):
        answer.close()
    elif type(answer) is int:
        os.close(answer)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("kind", KINDS)
async def test_descriptors_that_nobody_asked_for_are_closed(
    hostile: Hostile, taken: inits.Sandbox, ask: str, kind: str
) -> None:
    """With any answer, however good the rest of it is: else an init could use up those of the whole worker."""
    stat = wire.field(wire.Tag.STAT, b"\0" * 40)
    with some(kind, 16) as found:
        hostile.script = lambda message: [(_ok(message, stat, wire.number(wire.Tag.MORE, 0)), found)]
        count = Count()
        for _ in range(5):
            _close_streams(await _outcome(ASKS[ask](taken)))
        await count.none_left(taken)


@pytest.mark.parametrize("message", [wire.Type.READY, wire.Type.EXEC_EXITED, wire.Type.FAILED, wire.Type.OK, 9999])
@pytest.mark.parametrize("request_id", [0, 77])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_nobody_asked_for_brings_nothing(
    hostile: Hostile, taken: inits.Sandbox, message: int, request_id: int, kind: str
) -> None:
    """Events and answers to questions that were never asked are read away with their descriptors."""
    with some(kind, 8) as found:
        count = Count()
        for _ in range(20):
            hostile.send(wire.message(message, request_id), found)
        hostile.script = lambda message: [(_ok(message), ())]
        await _outcome(taken.files.remove("/f", user="root", recursive=False))
        await count.none_left(taken)


@pytest.mark.parametrize("number", [17, 64, 253])
async def test_more_descriptors_than_a_message_may_have_are_closed(
    hostile: Hostile, taken: inits.Sandbox, number: int
) -> None:
    """The kernel hands over those that there is room for, and the rest is lost: so is the channel."""
    with some("files", number) as found:
        count = Count()
        hostile.script = lambda message: [(_ok(message), found)]
        assert isinstance(await _outcome(taken.files.open("/f", os.O_RDONLY, user="root")), errors.TraforoError)
        await count.none_left(taken)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("seed", range(4))
async def test_garbage_ends_the_channel_and_every_wait(
    hostile: Hostile, taken: inits.Sandbox, ask: str, seed: int
) -> None:
    """Bytes that are no message, or one that makes no sense: whoever waits is told, and no descriptor is left."""
    chance = random.Random(seed)
    with some("pipes", 2) as pipe:
        count = Count()

        def answer(message: wire.Message) -> list[Answer]:
            good = _ok(message, wire.field(chance.randrange(128), chance.randbytes(chance.randrange(40))))
            bad = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            return [(bytes(bad[: chance.randrange(1, len(bad) + 1)]), pipe[: chance.randrange(3)]) for _ in range(8)]

        hostile.script = answer
        waiting = [asyncio.ensure_future(_outcome(ASKS[ask](taken))) for _ in range(4)]
        await asyncio.wait(waiting, timeout=0.1)
        hostile.send(b"\x01\x00\x01\x00garbage")
        for one in waiting:
            _close_streams(await one)
        assert taken.channel.closed
        await count.none_left(taken)


@pytest.mark.parametrize("length", [0, 1, 7, wire.MSG_MAX + 1])
async def test_messages_of_impossible_lengths_end_the_channel(
    hostile: Hostile, taken: inits.Sandbox, length: int
) -> None:
    """Empty ones, torn ones, and those that are larger than any can be."""
    hostile.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    hostile.script = lambda message: [(b"\0" * length, ())]
    answer = await _outcome(taken.files.stat("/f", user="root"))
    assert isinstance(answer, channels.Closed)
    assert taken.channel.closed


REFUSALS = {
    "torn number": wire.field(wire.Tag.ERRNO, b"abc"),
    "largest number": wire.field(wire.Tag.ERRNO, b"\xff" * 8),
    "string without end": wire.number(wire.Tag.ERRNO, 2) + wire.field(wire.Tag.STAGE, b"no end"),
    "string with two": wire.number(wire.Tag.ERRNO, 2) + wire.field(wire.Tag.TEXT, b"\0\0"),
    "no such error": wire.number(wire.Tag.ERRNO, 1 << 63) + wire.string(wire.Tag.STAGE, "exec"),
    "nothing": b"",
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_malformed_refusal_is_still_an_answer(
    hostile: Hostile, taken: inits.Sandbox, ask: str, refusal: str
) -> None:
    """Nobody waits for ever for an answer that came and could not be read."""
    fields = REFUSALS[refusal]
    hostile.script = lambda message: [(wire.message(wire.Type.ERROR, message.request_id, fields), ())]
    assert isinstance(await _outcome(ASKS[ask](taken)), (errors.TraforoError, contract.Usage))


async def test_what_an_init_says_of_an_error_can_be_shown(hostile: Hostile, taken: inits.Sandbox) -> None:
    """It is short and it is text, whatever was sent."""
    fields = wire.number(wire.Tag.ERRNO, 22) + wire.string(wire.Tag.TEXT, b"\xff\x1b" * 40000)
    hostile.script = lambda message: [(wire.message(wire.Type.ERROR, message.request_id, fields), ())]
    running = inits.Exec(taken, 1, b"", 2, (-1, -1, -1))
    with pytest.raises(errors.TraforoError) as caught:
        await running.signal(9, tree=False)
    assert len(str(caught.value).encode()) < 1000


WRONG = ["pipes", "sockets", "directories", "devices", "none", "two files"]


@pytest.mark.parametrize("thing", WRONG)
async def test_an_opened_file_is_one_regular_file(hostile: Hostile, taken: inits.Sandbox, thing: str) -> None:
    """Anything else could block whoever reads it, or speak to somebody else."""
    with some("files" if thing in {"none", "two files"} else thing, 2) as found:
        sent = {"none": [], "two files": found}.get(thing, found[:1])
        count = Count()
        hostile.script = lambda message: [(_ok(message), sent)]
        assert isinstance(await _outcome(taken.files.open("/f", os.O_RDONLY, user="root")), errors.TraforoError)
        await count.none_left(taken)


@pytest.mark.parametrize("thing", ["files", "sockets", "directories", "devices"])
@pytest.mark.parametrize("shape", ["none", "alone", "second", "first of three", "too many"])
async def test_streams_of_a_command_are_pipes(hostile: Hostile, taken: inits.Sandbox, thing: str, shape: str) -> None:
    """All of them, and as many as there have to be."""
    with some("pipes", 2) as good, some(thing, 2) as bad:
        shapes = {"none": [], "alone": good[:1], "second": [good[0], bad[0]], "first of three": [bad[0], *good]}
        sent = shapes.get(shape, good * 3)
        count = Count()
        hostile.script = lambda message: [(_ok(message, wire.number(wire.Tag.PID, 2)), sent)]
        answer = await _outcome(taken.exec(contract.ExecStart(b"", ["true"], {})))
        assert isinstance(answer, errors.TraforoError)
        await count.none_left(taken)


async def test_a_number_that_is_none_leaves_no_streams(hostile: Hostile, taken: inits.Sandbox) -> None:
    """The command has started, or the answer is thrown away as a whole with the pipes that came with it."""
    with some("pipes", 2) as pipe:
        count = Count()
        hostile.script = lambda message: [(_ok(message, wire.field(wire.Tag.PID, b"abc")), [pipe[0], pipe[0]])]
        answer = await _outcome(taken.exec(contract.ExecStart(b"", ["true"], {})))
        assert isinstance(answer, (inits.Exec, errors.TraforoError))
        _close_streams(answer)
        await count.none_left(taken)


async def test_an_init_cannot_make_the_worker_wait_for_its_pipes(hostile: Hostile, taken: inits.Sandbox) -> None:
    """Whether a descriptor blocks is a property it shares with the one it was sent from; ours must be apart."""
    pairs = [os.pipe() for _ in range(3)]
    sent = [pairs[0][0], pairs[1][0], pairs[2][1]]
    hostile.script = lambda message: [(_ok(message, wire.number(wire.Tag.PID, 2)), sent)]
    running = await taken.exec(contract.ExecStart(b"", ["true"], {}, stdin=True))
    for descriptor in sent:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    blocking = [os.get_blocking(descriptor) for descriptor in (running.stdout, running.stderr, running.stdin)]
    _close_streams(running)
    for pair in pairs:
        for descriptor in pair:
            os.close(descriptor)
    assert blocking == [False] * 3


def _lingering(seconds: int) -> tuple[int, socket.socket]:
    """Return a connection that is full and wants its last close to wait, and its other end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sending = socket.create_connection(listener.getsockname())
        receiving, _ = listener.accept()
    sending.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sending.send(b"x" * 65536)
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return sending.detach(), receiving


@pytest.mark.parametrize("ask", ["stat", "open", "event"])
async def test_closing_what_an_init_sent_holds_nobody_up(hostile: Hostile, taken: inits.Sandbox, ask: str) -> None:
    """The last close of a connection may wait for its other end: then somebody waits who has nothing else to do."""
    patient = 8
    descriptor, receiving = _lingering(patient)
    order: list[str] = []
    hostile.script = lambda message: [(_ok(message), ())]

    def give_way() -> None:
        order.append("gave way")
        receiving.close()

    timer = threading.Timer(patient / 2, give_way)
    timer.start()
    if ask == "event":
        hostile.send(wire.message(wire.Type.READY, 0), [descriptor])
        os.close(descriptor)
    else:
        sent = [descriptor]

        def answer(message: wire.Message) -> list[Answer]:
            hostile.send(_ok(message), [sent.pop()]) if sent else None
            os.close(descriptor)
            return []

        hostile.script = answer
        await _outcome(ASKS[ask](taken))
    await asyncio.sleep(0.1)
    order.append("went on")
    timer.cancel()
    receiving.close()
    assert order[0] == "went on"


async def test_a_listing_without_end_ends(hostile: Hostile, taken: inits.Sandbox) -> None:
    """An init may say that there is more for ever; the worker that comes back must not ask for ever."""
    hostile.script = lambda message: [
        (_ok(message, wire.number(wire.Tag.CURSOR, 0), wire.number(wire.Tag.MORE, 1)), ())
    ]
    asking = asyncio.ensure_future(_outcome(taken.execs()))
    done, _ = await asyncio.wait({asking}, timeout=20)
    asked = len(hostile.heard)
    taken.channel.close()
    await asking
    assert done
    assert asked < 5000


@pytest.mark.parametrize("status", [0x1_0000_0000, 1 << 63, (1 << 64) - 1, 0xFFFF_0000])
async def test_an_exit_that_cannot_be_is_a_lost_one(hostile: Hostile, taken: inits.Sandbox, status: int) -> None:
    """No invented code, and nothing raised into the event loop."""
    pipe = [os.pipe(), os.pipe()]
    hostile.script = lambda message: [
        (_ok(message, wire.number(wire.Tag.PID, 2)), [pipe[0][0], pipe[1][0]]),
        (
            wire.message(
                wire.Type.EXEC_EXITED, 0, wire.number(wire.Tag.NUMBER, 1), wire.number(wire.Tag.STATUS, status)
            ),
            (),
        ),
    ]
    running = await taken.exec(contract.ExecStart(b"", ["true"], {}))
    assert await asyncio.wait_for(running.ended, 5) == contract.ExecExit()
    _close_streams(running)
    for pair in pipe:
        for descriptor in pair:
            os.close(descriptor)


def _record(path: bytes, target: bytes = b"", /, **wrong: int) -> bytes:
    values = {"length": 40 + len(path) + len(target), "mode": 0o100644, "size": 1, "time": 0, "uid": 0, "gid": 0}
    values |= {"path": len(path), "target": len(target), **wrong}
    return struct.pack("<IIQqIIII", *values.values()) + path + target


STREAMS = {
    "nothing": b"",
    "a torn head": b"\0" * 39,
    "a torn path": _record(b"a")[:-1],
    "a long record": _record(b"a", length=0xFFFFFFFF),
    "a long path": _record(b"a", path=0xFFFFFFFF),
    "lengths that overflow": _record(b"a", path=0x80000000, target=0x80000000 - 2, length=42),
    "no end": _record(b"a") * 5,
    "more than asked for": _record(b"a") * 11,
    "an error that is none": _record(b"", mode=0, size=1 << 63),
    "a path beyond any": _record(b"x" * 20000),
    "noise": random.Random(1).randbytes(4096),
    "other noise": random.Random(2).randbytes(4096),
}


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_listing_is_read_as_hostile_bytes(hostile: Hostile, taken: inits.Sandbox, stream: str) -> None:
    """One that is torn, too long, lies about its lengths or never ends is an error, and its pipe is closed."""
    reader, writer = os.pipe()
    os.write(writer, STREAMS[stream])
    os.close(writer)
    count = Count()
    hostile.script = lambda message: [(_ok(message), [reader])]
    answer = await _outcome(taken.files.list("/f", user="root", recursive=True, limit=10))
    assert isinstance(answer, errors.TraforoError)
    await count.none_left(taken)
    os.close(reader)


async def test_a_listing_has_a_limit_of_bytes(hostile: Hostile, taken: inits.Sandbox) -> None:
    """A hundred thousand entries may be asked for; with paths as long as they get they must not fill the memory."""
    reader, writer = os.pipe()
    written = 0

    def pour() -> None:
        nonlocal written
        block = _record(b"x" * 4000) * 16
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100_000 // 16):
                written += os.write(writer, block)
        os.close(writer)

    def answer(message: wire.Message) -> list[Answer]:
        hostile.send(_ok(message), [reader])
        os.close(reader)
        return []

    hostile.script = answer
    source = threading.Thread(target=pour)
    source.start()
    await _outcome(taken.files.list("/f", user="root", recursive=True, limit=100_001))
    await asyncio.to_thread(source.join)
    assert written < 100 << 20


def _change(kind: int, path: bytes = b"", origin: bytes = b"", /, **wrong: int) -> bytes:
    values = {"length": 16 + len(path) + len(origin), "kind": kind, "directory": 0, "error": 0}
    values |= {"path": len(path), "origin": len(origin), **wrong}
    return struct.pack("<IBBHII", *values.values()) + path + origin


READY = _change(0)
WATCHES = {
    "nothing": b"",
    "a torn head": b"\0" * 15,
    "a change before the beginning": _change(1, b"a"),
    "an error": _change(0, error=28),
    "an error that is none": _change(0, error=0xFFFF),
    "noise": random.Random(3).randbytes(4096),
    "a path beyond any": READY + _change(1, b"x" * 5000),
    "a path that leads out": READY + _change(1, b"../../etc/passwd"),
    "a move from outside": READY + _change(1, b"a", b"../b"),
    "an absolute path": READY + _change(1, b"/etc/passwd"),
    "a length that lies": READY + _change(1, b"a", length=0xFFFFFFFF),
    "an unknown kind": READY + _change(99, b"a"),
    "noise later": READY + random.Random(4).randbytes(4096),
}


@pytest.mark.parametrize("stream", WATCHES)
async def test_changes_are_read_as_hostile_bytes(hostile: Hostile, taken: inits.Sandbox, stream: str) -> None:
    """What is malformed ends the watch with an error or with nothing, and its pipe is closed."""
    reader, writer = os.pipe()
    os.write(writer, WATCHES[stream])
    os.close(writer)
    count = Count()
    hostile.script = lambda message: [(_ok(message), [reader])]
    answer = await _outcome(taken.files.watch("/f", user="root", recursive=True))
    if isinstance(answer, watches.Watch):
        found = await _outcome(answer.changes())
        assert found == [] or isinstance(found, channels.Closed)
        assert answer.closed
    else:
        assert isinstance(answer, errors.TraforoError)
    await count.none_left(taken)
    os.close(reader)


async def test_an_init_cannot_make_the_worker_wait_for_changes(hostile: Hostile, taken: inits.Sandbox) -> None:
    """A pipe that it made blocking afterwards, from which nothing comes."""
    reader, writer = os.pipe()
    os.write(writer, READY)
    hostile.script = lambda message: [(_ok(message), [reader])]
    watch = await taken.files.watch("/f", user="root", recursive=True)
    os.set_blocking(reader, True)
    waiting = asyncio.ensure_future(watch.changes())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    taken.channel.close()
    assert list(await waiting) == []
    os.close(reader)
    os.close(writer)


async def test_watches_do_not_pile_up(hostile: Hostile, taken: inits.Sandbox) -> None:
    """An init that grants any number of them costs the worker so many descriptors and no more."""
    reader, writer = os.pipe()
    os.write(writer, READY * 40)
    hostile.script = lambda message: [(_ok(message), [reader])]
    for _ in range(16):
        os.write(writer, READY)
        await _outcome(taken.files.watch("/f", user="root", recursive=True))
    assert isinstance(await _outcome(taken.files.watch("/f", user="root", recursive=True)), errors.RateLimited)
    os.close(reader)
    os.close(writer)


def _listening() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def _half(kind: socket.SocketKind) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.close()
    return ours


NO_CONNECTIONS: dict[str, Callable[[], list[socket.socket]]] = {
    "none": list,
    "two": lambda: list(socket.socketpair()),
    "another family": lambda: [_half(socket.SOCK_STREAM)],
    "datagrams": lambda: [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)],
    "not connected": lambda: [socket.socket()],
    "listening": lambda: [_listening()],
    "another control socket": lambda: [_half(socket.SOCK_SEQPACKET)],
}


@pytest.mark.parametrize("thing", NO_CONNECTIONS)
async def test_a_connection_is_one(hostile: Hostile, taken: inits.Sandbox, thing: str) -> None:
    """Of the kind that was asked for, and connected to where it was asked for."""
    sent = NO_CONNECTIONS[thing]()
    count = Count()
    hostile.script = lambda message: [(_ok(message), [one.fileno() for one in sent])]
    assert isinstance(await _outcome(taken.connect(80)), errors.TraforoError)
    await count.none_left(taken)
    for one in sent:
        one.close()


async def test_a_connection_to_elsewhere_is_refused(hostile: Hostile, taken: inits.Sandbox) -> None:
    """One to another port may be one to another server."""
    with _listening() as server, socket.create_connection(server.getsockname()) as sent:
        count = Count()
        hostile.script = lambda message: [(_ok(message), [sent.fileno()])]
        assert isinstance(await _outcome(taken.connect(80)), errors.TraforoError)
        await count.none_left(taken)


async def test_sockets_are_taken_where_they_were_asked_for(hostile: Hostile, taken: inits.Sandbox) -> None:
    """By nobody else; a few that were asked for before the worker was started again are read away."""
    with some("sockets", 2) as found:
        count = Count()
        for _ in range(4):
            hostile.send(wire.message(wire.Type.OK, 77), found)
        hostile.script = lambda message: [(_ok(message), ())]
        await _outcome(taken.files.remove("/f", user="root", recursive=False))
        states_of = [taken.channel.closed]
        hostile.script = lambda message: [(_ok(message), found[:1])]
        assert isinstance(await _outcome(taken.files.open("/f", os.O_RDONLY, user="root")), errors.TraforoError)
        states_of.append(taken.channel.closed)
        assert states_of == [False, True]
        await count.none_left(taken)


@pytest.mark.parametrize("which", [0, 1, 2, 3, 4, 5, 6, 7, 8, 0xFFFF, 1 << 63])
@pytest.mark.parametrize("number", range(4))
async def test_streams_of_a_command_are_as_many_as_are_told(
    hostile: Hostile, taken: inits.Sandbox, which: int, number: int
) -> None:
    """When a worker takes them over: else one end would be used as the other."""
    with some("pipes", 4) as pipes:
        entry = wire.nested(wire.Tag.ENTRY, wire.number(wire.Tag.NUMBER, 7), wire.number(wire.Tag.PID, 2))

        def answer(message: wire.Message) -> list[Answer]:
            if message.kind == wire.Type.EXEC_LIST:
                return [(_ok(message, entry, wire.number(wire.Tag.MORE, 0)), ())]
            return [(_ok(message, wire.number(wire.Tag.STREAMS, which)), pipes[:number])]

        hostile.script = answer
        count = Count()
        found = await _outcome(taken.execs())
        if isinstance(found, list):
            streams = (found[0].stdout, found[0].stderr, found[0].stdin)
            assert [stream >= 0 for stream in streams] == [bool(which & bit) for bit in (2, 4, 1)]
            assert number == sum(stream >= 0 for stream in streams)
            _close_streams(found[0])
        await count.none_left(taken)


@pytest.mark.parametrize("size", [1 << 60, 1 << 63, (1 << 64) - 1])
async def test_a_disk_that_cannot_be_is_not_told(hostile: Hostile, taken: inits.Sandbox, size: int) -> None:
    """Where the init has to be asked."""
    taken.pid = 0
    fields = wire.number(wire.Tag.USED, size), wire.number(wire.Tag.SIZE, size)
    hostile.script = lambda message: [(_ok(message, *fields), ())]
    usage = await taken.usage()
    assert (usage.disk_bytes, usage.disk_limit_bytes) == (None, None)


async def test_an_exec_that_is_listed_twice_is_taken_over_once(hostile: Hostile, taken: inits.Sandbox) -> None:
    """Two owners of one descriptor would each close it, the second one somebody else's."""
    pipe = os.pipe()
    entry = wire.nested(wire.Tag.ENTRY, wire.number(wire.Tag.NUMBER, 7), wire.number(wire.Tag.PID, 2))

    def answer(message: wire.Message) -> list[Answer]:
        if message.kind == wire.Type.EXEC_LIST:
            return [(_ok(message, entry, entry, wire.number(wire.Tag.MORE, 0)), ())]
        return [(_ok(message, wire.number(wire.Tag.STREAMS, 6)), [pipe[0], pipe[0]])]

    hostile.script = answer
    found = await _outcome(taken.execs())
    if not isinstance(found, errors.TraforoError):
        assert isinstance(found, list)
        assert len(found) == 1
        _close_streams(found[0])
    for descriptor in pipe:
        os.close(descriptor)


async def test_an_init_that_does_not_answer_can_be_killed(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """The spawner does that, and whoever waited for the init is told."""
    other = await lab.create()
    os.kill(sandbox.pid, signal.SIGSTOP)
    waiting = [asyncio.ensure_future(_outcome(ask(sandbox))) for ask in ASKS.values()]
    assert (await labs.run(other, "echo alive")).stdout == b"alive\n"
    assert (await sandbox.kill(states.EndReason.DELETED)).reason is states.EndReason.DELETED
    assert [type(answer) for answer in await asyncio.gather(*waiting)] == [channels.Closed] * len(ASKS)


async def test_control_groups_that_an_init_made_do_not_keep_it_alive(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """It owns its v2 cgroup; what it nests there goes with the sandbox, and there is an end to how much it may make."""
    tree = lab.layout.v2
    if tree is None:
        pytest.skip("this host has no v2 control groups")
    group = Path(tree.path, sandbox.sandbox_id)
    attack = "mkdir e1; mkdir $(seq -f x%g 6000)"
    nest = "mkdir -p e1/deep/deeper"
    owner = group.stat().st_uid
    made = [
        await asyncio.to_thread(
            subprocess.run, ["/bin/sh", "-c", script], cwd=group, user=owner, group=owner, extra_groups=[], check=False,
            capture_output=True,
        )
        for script in (attack, nest)
    ]  # fmt: skip
    ending = asyncio.ensure_future(sandbox.kill(states.EndReason.DELETED))
    done, _ = await asyncio.wait({ending}, timeout=20)
    left = sorted(group.rglob("*/"), reverse=True) if group.exists() else []
    for directory in left:
        with contextlib.suppress(OSError):
            directory.rmdir()
    await ending
    assert done
    assert left == []
    assert [result.returncode != 0 for result in made] == [True, True]
