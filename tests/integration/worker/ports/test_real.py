"""Real servers in real sandboxes, which have no network but their own loopback device."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio import client as ws_client

from tests import servers

TALKER = r"""
import asyncio, base64, hashlib

async def serve(reader, writer):
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lower = head.lower()
        path = head.split(" ")[1]
        if path == "/ws":
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
            digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            accept = base64.b64encode(digest).decode()
            answer = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}"
            writer.write(answer.encode() + b"\r\n\r\n")
            while True:
                first, size = await reader.readexactly(2)
                size &= 127
                mask = await reader.readexactly(4)
                data = bytes(c ^ mask[i % 4] for i, c in enumerate(await reader.readexactly(size)))
                writer.write(bytes([first, size]) + data)
                if first & 15 == 8:
                    return writer.close()
        if path == "/events":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(3):
                event = b"data: %d\n\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"0\r\nX-Sum: 3\r\n\r\n")
            continue
        if "expect: 100-continue" in lower:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest, left = hashlib.sha256(), 0
        for line in lower.split("\r\n"):
            if line.startswith("content-length:"):
                left = int(line.split(":")[1])
        while left:
            data = await reader.read(min(left, 65536))
            left -= len(data)
            digest.update(data)
        body = digest.hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

async def main():
    server = await asyncio.start_server(serve, "::1" if "v6" in __import__("sys").argv else "127.0.0.1", 8001)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def up() -> Iterator[servers.Up]:
    with servers.started() as found:
        yield found


@pytest.fixture(scope="module")
def sandbox(up: servers.Up) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=up.worker_url, timeout=30) as client:
        made = client.post("/sandboxes", json={"ttl_seconds": 600}).json()
        client.base_url = f"{up.worker_url}/sandboxes/{made['sandbox_id']}"
        client.put("/files?path=/tmp/talker.py", content=TALKER.encode()).raise_for_status()
        commands = ("mkdir /tmp/www && echo hello > /tmp/www/a.txt && head -c 30000000 /dev/urandom > /tmp/www/big",)
        for command in commands:
            assert client.post("/exec", json={"command": command, "wait": True}).json()["exit_code"] == 0
        command = "cd /tmp/www && exec python3 -u -m http.server 8000 --bind 127.0.0.1"
        for started in (command, "exec python3 /tmp/talker.py"):
            run = client.post("/exec", json={"command": started}).json()
            page = client.get(f"/exec/{run['exec_id']}/frames?wait=30&limit=1").json()
            assert page["frames"], page
        yield client
        client.delete("")


def test_python_http_server(sandbox: httpx2.Client) -> None:
    """Files, a redirect to a directory, an error, and 30 MB; all over HTTP/1.0."""
    assert sandbox.get("/proxy/8000/a.txt").text == "hello\n"
    assert "a.txt" in sandbox.get("/proxy/8000/").text
    assert sandbox.get("/proxy/8000/missing").status_code == 404
    assert sandbox.head("/proxy/8000/a.txt").headers["content-length"] == "6"
    big = sandbox.get("/proxy/8000/big").content
    wanted = sandbox.post("/exec", json={"command": "sha256sum < /tmp/www/big", "wait": True}).json()["stdout"]
    assert hashlib.sha256(big).hexdigest() == wanted.split()[0]


def test_ports_are_listed(sandbox: httpx2.Client) -> None:
    """Those of the sandbox, and none of the host's."""
    assert sandbox.get("/ports").json() == {
        "ports": [
            {"port": 8000, "address": "127.0.0.1", "public": False},
            {"port": 8001, "address": "127.0.0.1", "public": False},
        ]
    }


def test_bodies_and_events(sandbox: httpx2.Client) -> None:
    """A large upload, `100 Continue`, and server-sent events in chunks with a trailer."""
    data = bytes(range(256)) * 40_000
    for headers in ({}, {"expect": "100-continue"}):
        answer = sandbox.post("/proxy/8001/up", content=data, headers=headers)
        assert answer.text == hashlib.sha256(data).hexdigest()
    assert sandbox.get("/proxy/8001/events").text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_nothing_listens(sandbox: httpx2.Client) -> None:
    """It is told as ours."""
    answer = sandbox.get("/proxy/9/")
    assert (answer.status_code, answer.headers["x-traforo-error"]) == (502, "port_unreachable")
    assert answer.json()["error"]["port"] == 9


async def test_websocket(sandbox: httpx2.Client) -> None:
    """A client of WebSockets talks to a server inside."""
    url = str(sandbox.base_url).replace("http", "ws", 1).rstrip("/")
    async with ws_client.connect(f"{url}/proxy/8001/ws", compression=None, proxy=None) as socket:
        for message in ("hello", b"\0\1\2"):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), 20) == message
    assert socket.close_code == 1000


def test_the_control_plane_redirects(up: servers.Up, sandbox: httpx2.Client) -> None:
    """Every method, path and query below a port leads to the worker, byte for byte."""
    path = Path(str(sandbox.base_url.path)).as_posix() + "/proxy/8000/a%2Fb?x=1"
    with httpx2.Client(base_url=up.control_url, timeout=30) as client:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers["location"]) == (307, f"{up.worker_url}{path}")
