"""Servers in sandboxes that lie, stall, flood and die: the next caller must notice nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes import sites
from traforo.worker.ports import pools, upstreams

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED = {
    "not HTTP": b"hello\r\n\r\n",
    "other version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "other protocol": b"ICY 200 OK\r\n\r\n",
    "odd status": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in a header": b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "CR in a value": b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: x\r\nContent-Length: 0\r\n\r\n",
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\nok",
    "odd length": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "odd coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unasked upgrade": b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
    "101 to nothing": b"HTTP/1.1 101 S\r\n\r\nraw",
    "interim answers without end": b"HTTP/1.1 100 C\r\n\r\n" * 40 + GOOD,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 129 + b"Content-Length: 0\r\n\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nA: " + b"b" * upstreams.MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
}


async def test_answers_that_cannot_be_passed_on(site: sites.Site) -> None:
    """Each is 502 in our form, and the connection of the caller goes on; the server's is closed."""
    peer = await site.call()
    for name, data in REFUSED.items():
        port = await site.say(data, close=name == "nothing")
        await peer.send(site.get(port))
        answer = await peer.message()
        assert (name, answer.status, answer.get("x-traforo-error")) == (name, 502, "upstream_failed")
        assert b'"upstream_failed"' in answer.body
    await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.message()).status == 200


@pytest.mark.parametrize(
    "method, answer",
    [
        ("GET", GOOD + GOOD.replace(b"ok", b"no")),
        ("GET", GOOD + b"junk"),
        ("GET", GOOD + b"\r\n"),
        ("GET", b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\nhello"),
        ("GET", b"HTTP/1.1 304 N\r\n\r\n" + GOOD),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + GOOD),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" + GOOD),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + GOOD),
    ],
)
async def test_more_than_one_answer(site: sites.Site, method: str, answer: bytes) -> None:
    """What follows an answer unasked is nobody's: its connection is never used again."""
    split = await site.say(answer)
    honest = await site.say(GOOD)
    peer = await site.call()
    for _ in range(3):
        await peer.send(site.get(split, method=method))
        first = await peer.message(method=method)
        assert first.status in {200, 204, 304}
        assert first.body in {b"", b"ok"}
        await peer.send(site.get(honest))
        assert (await peer.message()).body == b"ok"
    assert site.connections[0] >= 3 - (answer == GOOD + b"\r\n") * 2


async def test_an_answer_that_was_sent_ahead(site: sites.Site) -> None:
    """What comes on an idle connection closes it: it must not become the answer to the next request."""
    sent = asyncio.Event()

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await peer.send(GOOD)
        await asyncio.sleep(0.05)
        await peer.send(GOOD.replace(b"ok", b"no"))
        sent.set()
        await peer.rest()

    port = await site.serve(serve)
    peer = await site.call()
    for _ in range(2):
        sent.clear()
        await peer.send(site.get(port))
        assert (await peer.message()).body == b"ok"
        await asyncio.wait_for(sent.wait(), sites.SECONDS)
    assert site.connections == [2]


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_half_an_answer(site: sites.Site, start: bytes, reset: bool) -> None:
    """A caller can tell it from a whole one: its connection ends before the answer does."""

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await peer.send(start)
        await asyncio.sleep(0.05)
        if reset:
            peer.abort()

    port = await site.serve(serve)
    answer = await site.ask(site.get(port))
    assert (answer.status, answer.whole) == (200, False)
    assert b"half".startswith(answer.body)
    assert site.count("worker_port_requests_total", result="failed") == 1


async def test_half_an_answer_that_its_end_does_not_tell(site: sites.Site) -> None:
    """Where the end of the connection is the end of the answer, a reset is passed on: chunks lack their end, and for a
    caller of HTTP/1.0 the connection is reset.
    """

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        peer.abort()

    port = await site.serve(serve)
    answer = await site.ask(site.get(port))
    assert (answer.body, answer.whole) == (b"half", False)
    peer = await site.call()
    await peer.send(site.get(port).replace(b"HTTP/1.1", b"HTTP/1.0"))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(peer.reader.read(), sites.SECONDS)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nA: ",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
    ],
)
async def test_floods_that_get_nowhere(site: sites.Site, start: bytes) -> None:
    """An endless phrase, header, extension or trailer is cut off at the limit."""
    sent = 0

    async def serve(peer: sites.Peer) -> None:
        nonlocal sent
        await peer.message()
        await peer.send(start)
        while True:
            await peer.send(b"a" * 16384)
            sent += 16384
            await asyncio.sleep(0)

    port = await site.serve(serve)
    answer = await site.ask(site.get(port))
    assert answer.status == 502 or not answer.whole
    assert sent < 16 * 1024 * 1024  # what the buffers of two sockets hold


async def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it is 504, and the connections that wait are given up; a slow body before that is no reason."""
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.05)
    async with sites.made(tmp_path, ports_response_seconds=0.3) as site:

        async def serve(peer: sites.Peer) -> None:
            await peer.rest()

        port = await site.serve(serve)
        peer = await site.call()
        await peer.send(site.get(port, "/", "Content-Length: 5", method="PUT"))
        for _ in range(5):
            await asyncio.sleep(0.15)
            await peer.send(b"a")
        answer = await peer.message()
        assert (answer.status, answer.get("x-traforo-error")) == (504, "upstream_timeout")
        await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.message()).status == 200


async def test_a_long_answer_has_no_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has begun it may take its time."""
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.05)
    async with sites.made(tmp_path, ports_response_seconds=0.2) as site:

        async def serve(peer: sites.Peer) -> None:
            await peer.message()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            await asyncio.sleep(0.6)
            await peer.send(b"ok")

        assert (await site.ask(site.get(await site.serve(serve)))).body == b"ok"


async def test_idle_connections_are_given_up(site: sites.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """We do it before common servers would."""
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.05)
    ended = asyncio.Event()

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await peer.send(GOOD)
        await peer.ended()
        ended.set()

    await site.ask(site.get(await site.serve(serve)))
    await asyncio.wait_for(ended.wait(), sites.SECONDS)


class Stale:
    """A server that closes each connection instead of answering its second request."""

    def __init__(self, *, early: bool = False) -> None:
        self.requests: list[sites.Message] = []
        self.early = early

    async def __call__(self, peer: sites.Peer) -> None:
        self.requests.append(await peer.message())
        await peer.send(GOOD)
        if not self.early:
            self.requests.append(await peer.message())


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_stale_connections_are_not_noticed(site: sites.Site, method: str) -> None:
    """A request that may be repeated and has no body is sent again, once, on a new connection."""
    stale = Stale()
    port = await site.serve(stale)
    peer = await site.call()
    await peer.send(site.get(port))
    assert (await peer.message()).body == b"ok"
    await peer.send(site.get(port, method=method))
    assert (await peer.message(method=method)).status == 200
    assert site.connections == [2]
    assert len(stale.requests) == 3


@pytest.mark.parametrize("method, headers, body", [("POST", [], b""), ("PUT", ["Content-Length: 1"], b"x")])
async def test_what_may_not_be_repeated_is_sent_once(
    site: sites.Site, method: str, headers: list[str], body: bytes
) -> None:
    """It may have had an effect: the caller is told instead."""
    stale = Stale()
    port = await site.serve(stale)
    peer = await site.call()
    await peer.send(site.get(port))
    await peer.message()
    await peer.send(site.get(port, "/", *headers, method=method) + body)
    answer = await peer.message()
    assert (answer.status, answer.get("x-traforo-error")) == (502, "upstream_failed")
    assert [one.start.split(" ")[0] for one in stale.requests] == ["GET", method]


async def test_a_connection_that_was_closed_in_time_is_not_used(site: sites.Site) -> None:
    """Even what may not be repeated survives a server that closes idle connections."""
    stale = Stale(early=True)
    port = await site.serve(stale)
    peer = await site.call()
    for _ in range(5):
        await peer.send(site.get(port, method="POST"))
        assert (await peer.message()).body == b"ok"
    assert len(stale.requests) == 5


async def test_a_fresh_connection_that_breaks_is_not_tried_again(site: sites.Site) -> None:
    """Nothing speaks for a second attempt."""
    port = await site.say(b"", close=True)
    assert (await site.ask(site.get(port))).status == 502
    assert site.connections == [1]


@pytest.mark.parametrize("whose", ["sandbox", "worker"])
async def test_connections_are_limited(whose: str, site: sites.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of a sandbox, or of all together, it is 429, and others go on; idle connections make room."""
    if whose == "sandbox":
        monkeypatch.setattr(pools, "MAX_CONNECTIONS", 3)
    else:
        monkeypatch.setattr(pools.Room, "full", property(lambda room: room.used >= 3))
    gate = asyncio.Event()

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        await gate.wait()
        await peer.send(GOOD)
        await peer.rest()

    slow, quick = await site.serve(serve), await site.say(GOOD)
    assert (await site.ask(site.get(quick))).status == 200
    peers = [await site.call() for _ in range(3)]
    for peer in peers:
        await peer.send(site.get(slow))
    while site.connections[0] < 3:
        await asyncio.sleep(0.01)
    refused = await site.ask(site.get(quick))
    assert (refused.status, refused.get("x-traforo-error")) == (429, "rate_limited")
    gate.set()
    assert [(await peer.message()).status for peer in peers] == [200] * 3
    assert (await site.ask(site.get(quick))).status == 200
