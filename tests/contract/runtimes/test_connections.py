"""Connections to servers inside: ports on loopback and abstract names, whatever networks there are."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors
from traforo.domain.states import EndReason
from traforo.worker.runtimes import contract

Sandbox = contract.RunningSandbox

SERVER = """
import os, socket, sys
kind, place = sys.argv[1:]
if kind == "name":
    server = socket.socket(socket.AF_UNIX)
    server.bind("\\0" + place)
else:
    server = socket.socket(socket.AF_INET6 if kind == "6" else socket.AF_INET)
    server.bind(("::1" if kind == "6" else "127.0.0.1", int(place)))
server.listen(int(os.environ.get("BACKLOG", "16")))
if kind == "name":
    print("ready", flush=True)
else:
    print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    data = connection.recv(1 << 16)
    connection.sendall(b"heard " + data)
    connection.close()
"""


async def _serve(sandbox: Sandbox, kind: str, place: str) -> tuple[contract.RunningExec, str]:
    """Start a server and return what it says when it listens."""
    running = await sandbox.exec(outputs.start(["python3", "-c", SERVER, kind, place]))
    return running, (await outputs.line(running)).decode().strip()


async def _stop(running: contract.RunningExec) -> None:
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def _ask(connection: socket.socket, text: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    found = b""
    with connection:
        await loop.sock_sendall(connection, text)
        while piece := await loop.sock_recv(connection, 4096):
            found += piece
    return found


@pytest.mark.parametrize("kind", ["4", "6"])
async def test_a_port_of_either_kind(sandbox: Sandbox, kind: str) -> None:
    """Of either version of the protocol, several times."""
    running, port = await _serve(sandbox, kind, "0")
    for _ in range(3):
        connection = await sandbox.connect(int(port))
        assert not connection.getblocking()
        assert await _ask(connection, b"hello") == b"heard hello"
    await _stop(running)


async def test_an_abstract_name(sandbox: Sandbox) -> None:
    """As long as they get."""
    name = f"traforo-test-{os.getpid()}-".ljust(107, "x")
    running, _ = await _serve(sandbox, "name", name)
    assert await _ask(await sandbox.connect(name), b"hello") == b"heard hello"
    await _stop(running)


@pytest.mark.parametrize("place", [1, 65535, "no-such-name-anywhere"])
async def test_where_nothing_listens(sandbox: Sandbox, place: int | str) -> None:
    """Said at once, as a port that is not there."""
    with pytest.raises(errors.NotFound) as caught:
        await sandbox.connect(place)
    assert caught.value.fields["kind"] == "port"


@pytest.mark.parametrize("place", [0, 65536, -1, "", "x" * 108, "a\0b"])
async def test_what_is_no_place(subject: subjects.Subject, place: int | str) -> None:
    """Refused before anything is tried."""
    subject.needs_isolation()
    sandbox = await subject.create()
    with pytest.raises(errors.InvalidRequest):
        await sandbox.connect(place)


async def test_what_listens_on_the_host_is_not_inside(subject: subjects.Subject) -> None:
    """Neither on its loopback, nor by its abstract names."""
    subject.needs_isolation()
    sandbox = await subject.create()
    name = f"traforo-host-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0" + name)
        local.listen()
        for place in (tcp.getsockname()[1], name):
            with pytest.raises(errors.NotFound):
                await sandbox.connect(place)


async def test_sandboxes_have_ports_of_their_own(subject: subjects.Subject) -> None:
    """The same one in two of them is two."""
    subject.needs_isolation()
    one, other = await subject.create(), await subject.create()
    running, port = await _serve(one, "4", "8080")
    with pytest.raises(errors.NotFound):
        await other.connect(int(port))
    assert await _ask(await one.connect(8080), b"hello") == b"heard hello"
    await _stop(running)


async def test_many_at_once_and_after_the_worker(subject: subjects.Subject) -> None:
    """Connections do not wait for each other; the next worker makes them too."""
    subject.needs_isolation()
    sandbox = await subject.create()
    await _serve(sandbox, "4", "8080")
    await _serve(sandbox, "name", "kernel")
    (again,) = (await subject.restart()).live
    places: list[int | str] = [8080, "kernel"] * 20

    async def ask(number: int, place: int | str) -> bytes:
        return await _ask(await again.connect(place), b"%d" % number)

    answers = await asyncio.gather(*(ask(number, place) for number, place in enumerate(places)))
    assert answers == [b"heard %d" % n for n in range(40)]


@pytest.mark.parametrize("kind, place", [("4", "8080"), ("name", "kernel")])
async def test_a_server_that_does_not_accept(subject: subjects.Subject, kind: str, place: str) -> None:
    """Whoever connects waits for a while and is told."""
    subject.needs_isolation()
    sandbox = await subject.create()
    running = await sandbox.exec(
        outputs.start(["python3", "-c", SERVER, kind, place], env={"PATH": outputs.PATH, "BACKLOG": "0"})
    )
    await outputs.line(running)
    await running.signal(signal.SIGSTOP, tree=True)
    target = int(place) if place.isdecimal() else place
    held: list[socket.socket] = []

    async def connect() -> None:
        held.append(await sandbox.connect(target))

    async def connect_often() -> None:
        for _ in range(10):
            await connect()

    with pytest.raises(errors.NotFound):
        await connect_often()
    for connection in held:
        connection.close()
    await _stop(running)


async def test_a_dead_sandbox_has_no_ports(subject: subjects.Subject) -> None:
    """It is lost, whether it was connected to before or not."""
    subject.needs_isolation()
    for first in (False, True):
        sandbox = await subject.create()
        if first:
            running, port = await _serve(sandbox, "4", "0")
            (await sandbox.connect(int(port))).close()
            assert running.number == 1
        await sandbox.kill(EndReason.DELETED)
        with pytest.raises(errors.Lost):
            await sandbox.connect(80)


async def test_usage_is_told(subject: subjects.Subject) -> None:
    """What there is to tell, in the units of the contract."""
    sandbox = await subject.create()
    usage = await sandbox.usage()
    assert usage.oom_kills == 0
    assert usage.disk_limit_bytes is not None
    assert usage.disk_bytes is not None
    assert 0 <= usage.disk_bytes <= usage.disk_limit_bytes


async def test_usage_follows_what_is_done(subject: subjects.Subject) -> None:
    """Time that is spent, memory and disk that are filled, processes that run; nothing of a network that is not there."""
    subject.needs_isolation()
    sandbox = await subject.create(disk_mib=64)
    before = await sandbox.usage()
    running = await sandbox.exec(
        outputs.start("head -c 16777216 /dev/zero > file; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read x",
                      stdin=True)
    )  # fmt: skip
    await outputs.line(running)
    after = await sandbox.usage()
    assert (before.disk_limit_bytes, after.network_received_bytes, after.network_sent_bytes) == (64 << 20, None, None)
    for value in (before.disk_bytes, after.disk_bytes, before.cpu_seconds, after.cpu_seconds, before.memory_bytes):
        assert value is not None
    assert after.disk_bytes is not None and before.disk_bytes is not None  # noqa: PT018  # for the type checker
    assert 16 << 20 <= after.disk_bytes - before.disk_bytes < 17 << 20
    assert (after.cpu_seconds or 0) > (before.cpu_seconds or 0)
    assert (after.memory_bytes or 0) - (before.memory_bytes or 0) >= 12 << 20
    assert after.memory_peak_bytes is None or after.memory_peak_bytes >= (after.memory_bytes or 0)
    assert (before.pids, after.pids) == (0, 1)
    await outputs.end_input(running)
    await outputs.finish(running)


async def test_a_dead_sandbox_uses_nothing(subject: subjects.Subject) -> None:
    """It cannot be asked."""
    sandbox = await subject.create()
    await sandbox.kill(EndReason.DELETED)
    with pytest.raises(errors.Lost):
        await sandbox.usage()
