"""Connections that leave HTTP: WebSockets, anything else, and plain TCP."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import pytest
import websockets
from websockets.asyncio import client as ws_client
from websockets.asyncio import server as ws_server

from tests.fakes import sites

UPGRADE = ("Connection: Upgrade", "Upgrade: foo")


async def shout(peer: sites.Peer) -> None:
    """Switch, and answer everything in capitals."""
    await peer.message()
    await peer.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: foo\r\nX-A: b\r\n\r\nhello ")
    while data := await peer.reader.read(65536):
        await peer.send(data.upper())
    await peer.send(b" bye")


async def test_any_upgrade(site: sites.Site) -> None:
    """What is sent early on either side arrives, and each side ends for itself."""
    peer = await site.call()
    await peer.send(site.get(await site.serve(shout), "/", *UPGRADE) + b"early ")
    answer = await peer.head()
    assert (answer.status, answer.get("upgrade"), answer.get("x-a")) == (101, "foo", "b")
    await peer.send(b"late")
    peer.writer.write_eof()
    assert await peer.rest() == b"hello EARLY LATE bye"
    assert site.count("worker_port_tunnels") == 0


async def test_plain_tcp(site: sites.Site) -> None:
    """`traforo-tcp` joins a caller with whatever listens, which need not speak HTTP."""

    async def serve(peer: sites.Peer) -> None:
        await peer.send(b"220 hi\r\n")
        await peer.send(await peer.reader.readexactly(5))
        await peer.ended()
        await peer.send(b"end")

    port = await site.serve(serve)
    for prefix, host in ((site.prefix(port), "x"), ("", site.host(port))):
        peer = await site.call()
        request = f"GET {prefix}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: traforo-tcp\r\n\r\n"
        await peer.send(request.encode() + b"ab")
        answer = await peer.head()
        assert (answer.status, answer.get("upgrade")) == (101, "traforo-tcp")
        await peer.send(b"\0\xffc")
        peer.writer.write_eof()
        assert await peer.rest() == b"220 hi\r\nab\0\xffcend"


async def test_plain_tcp_to_nothing(site: sites.Site) -> None:
    """It is an error like any other, and HTTP goes on."""
    peer = await site.call()
    await peer.send(site.get(1, "/", "Connection: Upgrade", "Upgrade: traforo-tcp"))
    assert (await peer.message()).get("x-traforo-error") == "port_unreachable"
    await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.message()).status == 200


@pytest.mark.parametrize("caller", [False, True])
async def test_either_side_goes_away(site: sites.Site, caller: bool) -> None:
    """The other one is told."""
    over = asyncio.Event()
    go = asyncio.Event()

    async def serve(peer: sites.Peer) -> None:
        await peer.send(b"x")
        if caller:
            await peer.rest()
        else:
            await go.wait()
            peer.abort()
        over.set()

    peer = await site.call()
    await peer.send(site.get(await site.serve(serve), "/", "Connection: Upgrade", "Upgrade: traforo-tcp"))
    assert (await peer.head()).status == 101
    assert await peer.reader.readexactly(1) == b"x"
    assert site.count("worker_port_tunnels") == 1
    if caller:
        peer.abort()
    else:
        go.set()
        assert await peer.ended()
    await asyncio.wait_for(over.wait(), sites.SECONDS)
    while site.count("worker_port_tunnels") or site.count("worker_port_connections"):
        await asyncio.sleep(0.01)


async def test_tunnels_are_held_back(site: sites.Site) -> None:
    """In either direction no more is under way than the sockets hold."""
    sent = [0, 0]

    async def serve(peer: sites.Peer) -> None:
        async def pour() -> None:
            while True:
                await peer.send(b"x" * 65536)
                sent[0] += 65536

        await pour()

    peer = await site.call()
    await peer.send(site.get(await site.serve(serve), "/", "Connection: Upgrade", "Upgrade: traforo-tcp"))
    await peer.head()

    async def push() -> None:
        while True:
            await peer.send(b"y" * 65536)
            sent[1] += 65536

    task = asyncio.create_task(push())
    before: list[int] = []
    while before != sent:
        before = list(sent)
        await asyncio.sleep(0.5)
    task.cancel()
    assert max(sent) < 64 * 1024 * 1024


# ------------------------------------------------------------------------------------------------- WebSockets


async def converse(socket: ws_server.ServerConnection) -> None:
    """Echo; some words have a meaning."""
    async for message in socket:
        if message == "close":
            await socket.close(4321, "as you wish")
        elif message == "ping":
            await (await socket.ping())
            await socket.send("ponged")
        else:
            await socket.send(message)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("form", ["path", "host"])
async def test_websockets(site: sites.Site, compression: str | None, form: str) -> None:
    """Text, bytes, fragments, pings both ways, 16 MiB at once, and close codes, compressed or not."""
    async with ws_server.serve(converse, "127.0.0.1", 0, max_size=2**25, compression=compression) as server:
        port = server.sockets[0].getsockname()[1]
        where = f"127.0.0.1:{site.client.base_url.port}"
        url = f"ws://{where}{site.prefix(port)}/a?b" if form == "path" else f"ws://{site.host(port)}/a?b"
        options: dict[str, Any] = {} if form == "path" else {"host": "127.0.0.1", "port": site.client.base_url.port}
        async with ws_client.connect(url, max_size=2**25, compression=compression, proxy=None, **options) as socket:
            assert bool(socket.protocol.extensions) == (compression is not None)
            for message in ("", "a", "ä" * 1000, b"", bytes(range(256)), os.urandom(125), os.urandom(65536)):
                await socket.send(message)
                assert await asyncio.wait_for(socket.recv(), sites.SECONDS) == message
            await socket.send(["frag", "men", "", "ted"])
            assert await socket.recv() == "fragmented"
            await (await socket.ping(b"are you there?"))
            await socket.send("ping")
            assert await socket.recv() == "ponged"
            large = os.urandom(2**20) * 16
            await socket.send(large)
            assert await asyncio.wait_for(socket.recv(), sites.SECONDS) == large
            await socket.send("close")
            with pytest.raises(websockets.ConnectionClosedError):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4321, "as you wish")


async def test_a_refused_websocket(site: sites.Site) -> None:
    """The server's answer arrives."""
    port = await site.say(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    with pytest.raises(websockets.InvalidStatus) as caught:
        await ws_client.connect(f"ws://127.0.0.1:{site.client.base_url.port}{site.prefix(port)}/", proxy=None)
    assert (caught.value.response.status_code, caught.value.response.body) == (403, b"no")


async def test_broken_frames_pass_untouched(site: sites.Site) -> None:
    """Nothing of them is looked at: what a frame means is between its ends."""
    port = await site.serve(shout)
    peer = await site.call()
    key = base64.b64encode(os.urandom(16)).decode()
    await peer.send(site.get(port, "/", *UPGRADE, f"Sec-WebSocket-Key: {key}") + b"\xff\xff\xff")
    await peer.head()
    peer.writer.write_eof()
    assert await peer.rest() == b"hello \xff\xff\xff bye"
