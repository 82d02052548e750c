"""Large bodies, slow readers and writers, and callers that go away: memory stays flat and nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.fakes import sites

MIB = 1024 * 1024
BLOCK = bytes(range(256)) * 4096
HELD = 64 * MIB
"""More than the kernel's buffers of three connections hold."""


async def settled(count: list[int]) -> int:
    """Return a number when it does not grow any more."""
    before = -1
    while count[0] != before:
        before = count[0]
        await asyncio.sleep(0.3)
    return before


@pytest.mark.parametrize("chunked", [False, True])
async def test_100_mib_down(site: sites.Site, chunked: bool) -> None:
    """Byte for byte, in either framing, and only as fast as the caller reads."""
    sent = [0]

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (100 * MIB)
        await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        for _ in range(100):
            await peer.send(b"%x\r\n%b\r\n" % (MIB, BLOCK) if chunked else BLOCK)
            sent[0] += MIB
        if chunked:
            await peer.send(b"0\r\n\r\n")

    port = await site.serve(serve)
    digest = hashlib.sha256()
    async with site.client.stream("GET", site.prefix(port) + "/") as answer:
        assert await settled(sent) < HELD
        async for piece in answer.aiter_raw():
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(BLOCK * 100).digest()


@pytest.mark.parametrize("chunked", [False, True])
async def test_100_mib_up(site: sites.Site, chunked: bool) -> None:
    """Byte for byte, in either framing, and only as fast as the server reads."""
    go = asyncio.Event()
    digest = hashlib.sha256()

    async def serve(peer: sites.Peer) -> None:
        found = await peer.head()
        await go.wait()
        if found.get("content-length"):
            for _ in range(100):
                digest.update(await peer.reader.readexactly(MIB))
        while not found.get("content-length") and (size := int(await peer.reader.readuntil(b"\r\n"), 16)):
            digest.update((await peer.reader.readexactly(size + 2))[:-2])
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    port = await site.serve(serve)
    peer = await site.call()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MIB}"
    await peer.send(site.get(port, "/", framing, method="POST"))
    sent = [0]

    async def upload() -> None:
        for _ in range(100):
            await peer.send(b"%x\r\n%b\r\n" % (MIB, BLOCK) if chunked else BLOCK)
            sent[0] += MIB
        if chunked:
            await peer.send(b"0\r\n\r\n")

    task = asyncio.create_task(upload())
    assert await settled(sent) < HELD
    go.set()
    await task
    assert (await peer.message()).status == 200
    assert digest.digest() == hashlib.sha256(BLOCK * 100).digest()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_that_goes_away(site: sites.Site, begun: bool) -> None:
    """Its server is told by the end of the connection, and the request is counted as abandoned."""
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        if begun:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        asked.set()
        await peer.rest()
        gone.set()

    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port))
    await asyncio.wait_for(asked.wait(), sites.SECONDS)
    if begun:
        await peer.head()
    peer.close()
    await asyncio.wait_for(gone.wait(), sites.SECONDS)
    assert site.count("worker_port_requests_total", result="abandoned") == 1
    assert site.count("worker_port_connections") == 0


async def test_a_caller_that_goes_away_in_its_body(site: sites.Site) -> None:
    """The server never sees the end of such a request."""
    whole: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def serve(peer: sites.Peer) -> None:
        whole.set_result((await peer.message()).whole)

    port = await site.serve(serve)
    for framing, start in (("Content-Length: 10", b"half"), ("Transfer-Encoding: chunked", b"4\r\nhalf\r\n")):
        whole = asyncio.get_running_loop().create_future()
        peer = await site.call()
        await peer.send(site.get(port, "/", framing, method="POST") + start)
        await asyncio.sleep(0.1)
        peer.close()
        assert not await asyncio.wait_for(whole, sites.SECONDS)


async def test_one_slow_caller_slows_nobody(site: sites.Site) -> None:
    """Others are served while one does not read."""

    async def serve(peer: sites.Peer) -> None:
        while True:
            found = await peer.message()
            if "/big" in found.start:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
                for _ in range(64):
                    await peer.send(BLOCK)
            else:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    port = await site.serve(serve)
    slow = [await site.call() for _ in range(3)]
    for peer in slow:
        await peer.send(site.get(port, "/big"))
    for _ in range(50):
        assert (await site.ask(site.get(port))).body == b"ok"
    for peer in slow:
        peer.close()


async def test_the_sandbox_ends(site: sites.Site) -> None:
    """Its connections end with it, and then there is nothing to reach."""

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await peer.rest()

    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port))
    assert (await peer.head()).status == 200
    assert (await site.client.delete(f"/sandboxes/{site.id}")).status_code == 204
    assert await asyncio.wait_for(peer.reader.read(), sites.SECONDS) == b"half"
    refused = await site.ask(site.get(port))
    assert (refused.status, refused.get("x-traforo-error")) == (409, "conflict")
    assert site.count("worker_port_connections") == 0
