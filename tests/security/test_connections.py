"""Connections from the worker into a sandbox: they lead there and nowhere else, and bring bytes and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.security import labs
from traforo.domain import errors
from traforo.worker.runtimes import contract

SERVER = """
import array, os, socket, struct, sys
kind, place = sys.argv[1:3]
if kind == "name":
    server = socket.socket(socket.AF_UNIX)
    server.bind("\\0" + place)
else:
    server = socket.create_server(("127.0.0.1", int(place)))
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    if len(sys.argv) > 3:
        receiver = socket.create_server(("127.0.0.1", 0))
        heavy = socket.create_connection(receiver.getsockname())
        other, _ = receiver.accept()
        heavy.setblocking(False)
        try:
            while True:
                heavy.send(b"x" * 65536)
        except BlockingIOError:
            pass
        heavy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
        try:
            socket.send_fds(connection, [b"with"], [heavy.fileno()])
        except PermissionError:
            connection.send(b"without")
            heavy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        heavy.close()
    else:
        connection.send(b"heard " + connection.recv(100))
    connection.close()
"""


async def _serve(sandbox: labs.Sandbox, *words: str) -> contract.RunningExec:
    running = await labs.start(sandbox, ["python3", "-c", SERVER, *words])
    await labs.line(running)
    return running


async def _ask(connection: socket.socket, text: bytes = b"") -> bytes:
    loop = asyncio.get_running_loop()
    found = b""
    with connection:
        if text:
            await loop.sock_sendall(connection, text)
        while piece := await loop.sock_recv(connection, 4096):
            found += piece
    return found


@pytest.fixture(params=["worker", "init"])
async def connecting(request: pytest.FixtureRequest, sandbox: labs.Sandbox) -> labs.Sandbox:
    """A sandbox whose connections are made by the worker, or by its init as on a rootless host."""
    sandbox._network._namespaces.refused = request.param == "init"
    return sandbox


async def test_connections_lead_inside(connecting: labs.Sandbox) -> None:
    """Whoever makes them; what the host has on the same port and name is not meant."""
    name = f"traforo-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0" + name)
        local.listen()
        port = tcp.getsockname()[1]
        for place in (port, name):
            with pytest.raises(errors.NotFound):
                await connecting.connect(place)
        servers = [await _serve(connecting, "tcp", str(port)), await _serve(connecting, "name", name)]
        for place in (port, name):
            assert await _ask(await connecting.connect(place), b"this") == b"heard this"
        for server in servers:
            await labs.end(server)


async def test_what_is_inside_reaches_no_name_of_the_host(sandbox: labs.Sandbox) -> None:
    """Nor does a command, the other way round."""
    name = f"traforo-{os.getpid()}"
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
    with socket.socket(socket.AF_UNIX) as local:
        local.bind("\0" + name)
        local.listen()
        assert (await labs.run(sandbox, ["python3", "-c", script])).exit.code == 1
        with socket.socket(socket.AF_UNIX) as control:
            control.connect("\0" + name)


async def test_descriptors_that_come_along_hold_nobody_up(connecting: labs.Sandbox) -> None:
    """The last close of one may wait for a minute: it is not the event loop that waits."""
    server = await _serve(connecting, "name", "heavy", "attack")
    order: list[str] = []
    timer = threading.Timer(10, order.append, ["gave way"])
    timer.start()
    connection = await connecting.connect("heavy")
    with contextlib.suppress(TimeoutError):
        assert await asyncio.wait_for(_ask(connection), 1) in {b"with", b"without"}
    order.append("went on")
    timer.cancel()
    assert order == ["went on"]
    await labs.end(server)


async def test_the_worker_stays_at_home(sandbox: labs.Sandbox) -> None:
    """No thread of it is left in a sandbox's network, and none of its sockets can be reached from there."""
    home = os.readlink("/proc/self/ns/net")
    server = await _serve(sandbox, "tcp", "8080")
    for _ in range(10):
        await _ask(await sandbox.connect(8080), b"x")
    places = {os.readlink(task / "ns" / "net") for task in Path("/proc/self/task").iterdir()}
    assert places == {home}
    await labs.end(server)


async def test_the_network_of_a_dead_sandbox_is_not_kept(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Nor is any descriptor of it."""
    with pytest.raises(errors.NotFound):
        await sandbox.connect(8080)

    def networks() -> int:
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found += os.readlink(entry).startswith("net:")
            except FileNotFoundError:
                continue
        return found

    before = networks()
    await lab.remove(sandbox)
    assert networks() == before - 1
