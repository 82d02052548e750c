"""Clients attached to execs over real WebSockets: output byte for byte, input, resuming, and what hostile ones send."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import benches, peers
from tests.fakes.peers import BINARY, PING, TEXT, frame
from traforo.api import schemas
from traforo.domain import specs
from traforo.worker.execs import execs
from traforo.worker.execs.packets import Down, Up
from traforo.worker.outputs import framelogs
from traforo.worker.routes import streams as routes_streams


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


@pytest.fixture
async def served(bench: benches.Bench) -> AsyncIterator[benches.Served]:
    async with bench.served() as found:
        yield found


class Attached:
    """A client of one exec, and what it was told."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self.cursor = 0
        self.output = {Down.STDOUT: bytearray(), Down.STDERR: bytearray()}
        self.gaps: list[int] = []
        self.results: list[Any] = []
        self.exit: Any = None
        self.code = 0

    async def step(self) -> bool:
        """Take one message; False when it was the end."""
        found = await self.peer.receive()
        if found.opcode == peers.CLOSE:
            self.code = found.code
            return False
        if found.opcode == PING:
            return True
        assert found.opcode == BINARY
        kind, cursor = struct.unpack_from(">BQ", found.payload)
        payload = found.payload[9:]
        assert cursor >= self.cursor
        self.cursor = cursor
        match kind:
            case Down.STDOUT | Down.STDERR:
                assert payload
                self.output[Down(kind)] += payload
            case Down.EXIT:
                self.exit = json.loads(payload)
            case Down.GAP:
                self.gaps.append(json.loads(payload)["dropped"])
            case Down.RESULT:
                self.results.append(json.loads(payload))
        return True

    async def rest(self) -> bytes:
        """Take everything, and return what was written to stdout."""
        while await self.step():
            pass
        return bytes(self.output[Down.STDOUT])

    async def until(self, wanted: bytes) -> None:
        """Take messages until stdout ends with this."""
        while not self.output[Down.STDOUT].endswith(wanted):
            assert await self.step(), self.output

    async def up(self, kind: Up, payload: bytes = b"") -> None:
        await self.peer.send(frame(BINARY, bytes([kind]) + payload))


async def attached(served: benches.Served, peer: peers.Peer, exec_id: str, cursor: int = 0) -> Attached:
    status, body = await peer.shake(f"{served.path}/exec/{exec_id}/ws?cursor={cursor}")
    assert status == 101, body
    return Attached(peer)


async def test_output_and_end(bench: benches.Bench, served: benches.Served) -> None:
    """Both streams, the end and the close come, while it runs and after it has ended alike."""
    run = await bench.run("printf 'a\\377b'; printf err >&2; exit 3")
    for _ in range(2):
        async with peers.connected(served.port) as peer:
            client = await attached(served, peer, run.id)
            assert await client.rest() == b"a\xffb"
            assert client.output[Down.STDERR] == b"err"
            assert (client.exit, client.code) == ({"end": "exited", "exit_code": 3, "signal": None}, 1000)
            assert (client.cursor, client.gaps) == (3, [])


async def test_resume(bench: benches.Bench, served: benches.Served) -> None:
    """From the cursor of any message on everything that came behind it comes again, and nothing else."""
    run = await bench.run("for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done")
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        seen = [(0, b"")]
        while await client.step():
            seen.append((client.cursor, bytes(client.output[Down.STDOUT])))
    everything = b"".join(b"line %d\n" % number for number in range(1, 6))
    for cursor, before in seen[:-1]:
        async with peers.connected(served.port) as peer:
            again = await attached(served, peer, run.id, cursor)
            assert before + await again.rest() == everything
            assert again.exit == client.exit
    async with peers.connected(served.port) as peer:
        nothing = await attached(served, peer, run.id, client.cursor)
        assert (await nothing.rest(), nothing.exit, nothing.code) == (b"", None, 1000)


async def test_input(bench: benches.Bench, served: benches.Served) -> None:
    """What is sent is read, in order, up to the end that is sent."""
    run = await bench.run("cat; echo end; exit 4", stdin_open=True)
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        pieces = [b"x" * 70_000, b"", b"yy\n"]
        for piece in pieces:
            await client.up(Up.STDIN, piece)
        await client.up(Up.END)
        assert await client.rest() == b"".join(pieces) + b"end\n"
        assert client.exit["exit_code"] == 4


async def test_terminal(bench: benches.Bench, served: benches.Served) -> None:
    """Two clients share a terminal: both type, both see everything, sizes and signals reach it, one may leave."""
    run = await bench.run("trap 'echo int' INT; while read x; do stty size; done", terminal=specs.Terminal(7, 8))
    async with peers.connected(served.port) as one, peers.connected(served.port) as two:
        first, second = await attached(served, one, run.id), await attached(served, two, run.id)
        await first.up(Up.STDIN, b"a\n")
        await first.until(b"7 8\r\n")
        await second.until(b"7 8\r\n")
        await second.up(Up.RESIZE, struct.pack(">HH", 9, 10))
        await second.up(Up.STDIN, b"b\n")
        await first.until(b"9 10\r\n")
        one.writer.transport.abort()
        await second.up(Up.STDIN, b"c\n")
        await second.until(b"c\r\n9 10\r\n")
        await second.up(Up.SIGNAL, bytes([9, 1]))
        await second.rest()
        assert (second.exit["signal"], second.code) == (9, 1000)


async def test_client_is_held_back_with_its_command(bench: benches.Bench, served: benches.Served) -> None:
    """A client that writes more than the command reads cannot send it; it gets the output meanwhile, and pongs."""
    run = await bench.run("sleep 0.3; echo there; exec sleep 100", stdin_open=True)
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        message = frame(BINARY, bytes([Up.STDIN]) + b"x" * 60_000)
        assert await peer.send_until_stuck(message, 500) < 500
        await client.until(b"there\n")
        assert run.outcome is None
        await bench.kill_all()
        await client.rest()
        assert client.exit["signal"] == 9


async def test_client_that_vanishes_while_it_is_held_back(
    bench: benches.Bench, served: benches.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer and its reader go; the exec goes on."""
    monkeypatch.setattr("traforo.api.upgrades.PING_SECONDS", 0.05)
    run = await bench.run(["sleep", "100"], stdin_open=True)
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        for _ in range(10):
            await client.up(Up.STDIN, b"x" * 60_000)
        await benches.until(lambda: bench.entry.activity.holds == 2)
        peer.writer.transport.abort()
    await benches.until(lambda: bench.entry.activity.holds == 1)
    assert (run.outcome, run.watchers) == (None, [])


async def test_slow_reader_slows_nobody(bench: benches.Bench, served: benches.Served) -> None:
    """One that does not read holds up neither the command nor another reader, and gets everything later."""
    run = await bench.run("head -c 30000000 /dev/zero")
    async with peers.connected(served.port) as one, peers.connected(served.port) as two:
        slow, quick = await attached(served, one, run.id), await attached(served, two, run.id)
        assert await quick.rest() == bytes(30_000_000)
        assert run.outcome is not None
        assert await slow.rest() == bytes(30_000_000)
        assert (slow.gaps, slow.exit) == ([], quick.exit)


async def test_reader_that_is_too_slow(tmp_path: Path) -> None:
    """What the log dropped is told as a gap, to the byte."""
    kept = execs.Limits(log=framelogs.Limits(400_000, 100_000))
    async with benches.made(tmp_path / "small", kept) as bench, bench.served() as served:
        run = await bench.run("head -c 5000000 /dev/zero; printf end")
        await bench.execs.wait(run)
        async with peers.connected(served.port) as peer:
            client = await attached(served, peer, run.id)
            found = await client.rest()
        assert found.endswith(b"\0end")
        assert (len(found) + sum(client.gaps), len(client.gaps)) == (5_000_003, 1)


@pytest.mark.parametrize(
    "sent, code",
    [
        (frame(TEXT, b"hello"), 1008),
        (frame(BINARY, b""), 1008),
        (frame(BINARY, b"\x00"), 1008),
        (frame(BINARY, b"\x01output"), 1008),
        (frame(BINARY, b"\x11x"), 1008),
        (frame(BINARY, b"\x12\0\0\0"), 1008),
        (frame(BINARY, b"\x12\0\0\0\0"), 1008),
        (frame(BINARY, b"\x12\x10\x01\0\x01"), 1008),
        (frame(BINARY, b"\x12\0\x01\0\x01"), 4409),
        (frame(BINARY, b"\x13\x00\x00"), 1008),
        (frame(BINARY, b"\x13\x41\x00"), 1008),
        (frame(BINARY, b"\x13\x09\x02"), 1008),
        (frame(BINARY, b"\x13\x09"), 1008),
        (frame(BINARY, b"\x10x"), 4409),
        (frame(BINARY, b"\x11"), 4409),
        (frame(BINARY, b"\xff" * 100), 1008),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, length=2**40), 1009),
    ],
)
async def test_bad_messages(bench: benches.Bench, served: benches.Served, sent: bytes, code: int) -> None:
    """A message that cannot be read or carried out ends the connection with a code that says why, not the exec."""
    run = await bench.run(["sleep", "100"])
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        await peer.send(sent)
        await client.rest()
        assert client.code == code
    assert run.outcome is None


async def test_input_that_comes_too_late(bench: benches.Bench, served: benches.Served) -> None:
    """What is sent to a command that ends does not take the end away."""
    run = await bench.run("read x; exit 6", stdin_open=True)
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        for _ in range(200):
            await client.up(Up.STDIN, b"go\n")
        await client.rest()
        assert (client.exit["exit_code"], client.code) == (6, 1000)


async def test_command_that_closed_its_input(bench: benches.Bench, served: benches.Served) -> None:
    """Input that a running command cannot read is told to be refused."""
    run = await bench.run("exec 0<&-; echo closed; exec sleep 100", stdin_open=True)
    async with peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        await client.until(b"closed\n")
        await client.up(Up.STDIN, b"x")
        await client.rest()
        assert (client.code, run.outcome) == (4409, None)


async def test_start_and_attach(bench: benches.Bench, served: benches.Served) -> None:
    """A socket can start a command with its first message, and is attached to it."""
    async with peers.connected(served.port) as peer:
        assert (await peer.shake(f"{served.path}/exec/ws"))[0] == 101
        await peer.send(frame(TEXT, json.dumps({"command": "cat; exit 9", "stdin_open": True, "tag": "t"}).encode()))
        begun = schemas.ExecStarted.model_validate_json((await peer.receive()).payload)
        client = Attached(peer)
        await client.up(Up.STDIN, b"hello")
        await client.up(Up.END)
        assert await client.rest() == b"hello"
        assert client.exit["exit_code"] == 9
    assert bench.execs.get(bench.entry, begun.exec_id).tag == "t"


@pytest.mark.parametrize(
    "first, code, error",
    [
        (frame(TEXT, b'{"command": []}'), 1008, "invalid_request"),
        (frame(TEXT, b"no json"), 1008, "invalid_request"),
        (frame(BINARY, b"{}"), 1008, "invalid_request"),
        (frame(TEXT, b'{"wait": true}'), 1008, "invalid_request"),
        (frame(TEXT, b'{"command": ["/no/such/program"]}'), 4422, "start_failed"),
        (frame(TEXT, b'{"user": "nobody-here"}'), 4404, "not_found"),
    ],
)
async def test_start_that_fails(
    bench: benches.Bench, served: benches.Served, first: bytes, code: int, error: str
) -> None:
    """The whole error comes as a text message, and then its code as the end."""
    async with peers.connected(served.port) as peer:
        await peer.shake(f"{served.path}/exec/ws")
        await peer.send(first)
        told = schemas.Problem.model_validate_json((await peer.receive()).payload)
        assert told.error.code == error
        assert (await peer.until_close()).code == code
    assert bench.execs.page(bench.entry, 10, None)[0] == []


async def test_nothing_is_started(
    bench: benches.Bench, served: benches.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that says nothing is not kept for ever."""
    monkeypatch.setattr(routes_streams, "FIRST_MESSAGE_SECONDS", 0.05)
    async with peers.connected(served.port) as peer:
        await peer.shake(f"{served.path}/exec/ws")
        assert (await peer.until_close()).code == 1008
    await benches.until(lambda: bench.entry.activity.holds == 0)


@pytest.mark.parametrize(
    "path, status",
    [
        ("/exec/exec_01K6Z8Q4T3V7WXYZ0123456789/ws", 404),
        ("/exec/nonsense/ws", 400),
        ("/exec/{id}/ws?cursor=-1", 400),
        ("/exec/{id}/ws?cursor=x", 400),
    ],
)
async def test_handshakes_that_fail(bench: benches.Bench, served: benches.Served, path: str, status: int) -> None:
    """What does not exist or cannot be is an HTTP answer."""
    run = await bench.run("true")
    async with peers.connected(served.port) as peer:
        found, body = await peer.shake(served.path + path.format(id=run.id))
        assert found == status
        schemas.Problem.model_validate(body)


async def test_worker_that_stops(bench: benches.Bench) -> None:
    """Who is attached is told to come back, and finds the exec and its output again."""
    run = await bench.run("echo before; read x; echo $x", stdin_open=True)
    async with bench.served() as served, peers.connected(served.port) as peer:
        client = await attached(served, peer, run.id)
        await client.until(b"before\n")
        await bench.execs.close()
        await client.rest()
        assert client.code == 1012
    await bench.crash()
    async with bench.served() as served, peers.connected(served.port) as peer:
        again = await attached(served, peer, run.id, client.cursor)
        await again.up(Up.STDIN, b"behind\n")
        assert await again.rest() == b"behind\n"


async def test_hundred_readers(bench: benches.Bench, served: benches.Served) -> None:
    """Many readers of one exec get the same bytes."""
    run = await bench.run("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.01; done")

    async def one() -> bytes:
        async with peers.connected(served.port) as peer:
            return await (await attached(served, peer, run.id)).rest()

    assert set(await asyncio.gather(*(one() for _ in range(100)))) == {b"1\n2\n3\n4\n5\n6\n7\n8\n"}
    assert run.watchers == []
