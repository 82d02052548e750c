"""Requests that two readers could take for two things: refused with 400 and the end of the connection, one by one.

Behind each comes another request, which must neither reach the server nor be answered.
"""

from __future__ import annotations

import pytest

from tests.fakes import sites

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

HEADS = {
    "length and chunks": "Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": "Host: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "two equal lengths": "Host: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": "Host: x\r\nContent-Length: 3, 3\r\n\r\nabc",
    "signed length": "Host: x\r\nContent-Length: +3\r\n\r\nabc",
    "negative length": "Host: x\r\nContent-Length: -3\r\n\r\nabc",
    "hexadecimal length": "Host: x\r\nContent-Length: 0x3\r\n\r\nabc",
    "no length": "Host: x\r\nContent-Length:\r\n\r\nabc",
    "endless length": "Host: x\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
    "length of 20 digits": "Host: x\r\nContent-Length: 00000000000000000003\r\n\r\nabc",
    "bare LF": "Host: x\nContent-Length: 3\r\n\r\nabc",
    "bare LF at the end": "Host: x\r\n\nabc",
    "bare CR": "Host: x\rX: y\r\n\r\n",
    "folded": "Host: x\r\nX: a\r\n b\r\n\r\n",
    "folded coding": "Host: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "space before colon": "Host: x\r\nContent-Length : 3\r\n\r\nabc",
    "space before name": " Host: x\r\n\r\n",
    "no name": "Host: x\r\n: y\r\n\r\n",
    "no colon": "Host: x\r\nX\r\n\r\n",
    "NUL in value": "Host: x\r\nX: a\0b\r\n\r\n",
    "control in value": "Host: x\r\nX: a\x01b\r\n\r\n",
    "control in name": "Host: x\r\nX\x01: a\r\n\r\n",
    "odd coding": "Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding before chunks": "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding after chunks": "Host: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks twice": "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity, then chunks": "Host: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "tab in coding": "Host: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted coding": 'Host: x\r\nTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding with parameter": "Host: x\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "two hosts": "Host: x\r\nHost: y\r\n\r\n",
    "no host": "X: y\r\n\r\n",
    "odd host": "Host: x/y\r\n\r\n",
    "odd expectation": "Host: x\r\nExpect: a-pony\r\n\r\n",
    "two authorizations": "Host: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
}
BODIES = {
    "negative size": "-3\r\nabc\r\n0\r\n\r\n",
    "prefixed size": "0x3\r\nabc\r\n0\r\n\r\n",
    "no size": "\r\nabc\r\n0\r\n\r\n",
    "space after size": "3 \r\nabc\r\n0\r\n\r\n",
    "space before size": " 3\r\nabc\r\n0\r\n\r\n",
    "endless size": "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "bare LF after size": "3\nabc\r\n0\r\n\r\n",
    "bare LF after data": "3\r\nabc\n0\r\n\r\n",
    "more data than size": "3\r\nabcd\r\n0\r\n\r\n",
    "bare LF in extension": "3;a\nabc\r\n0\r\n\r\n",
    "CR in extension": "3;a\rx\r\nabc\r\n0\r\n\r\n",
    "folded trailer": "0\r\nX: a\r\n b\r\n\r\n",
    "length as trailer": "0\r\nContent-Length: 3\r\n\r\n",
    "coding as trailer": "0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF at the end": "0\r\n\n",
}


@pytest.fixture
async def server(site: sites.Site) -> tuple[int, list[sites.Message]]:
    seen: list[sites.Message] = []

    async def serve(peer: sites.Peer) -> None:
        while True:
            seen.append(await peer.message())
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return await site.serve(serve), seen


async def test_heads(site: sites.Site, server: tuple[int, list[sites.Message]]) -> None:
    """Not one byte of such a request is forwarded."""
    port, seen = server
    for name, head in HEADS.items():
        for method in ("POST", "GET"):
            peer = await site.call()
            await peer.send(f"{method} {site.prefix(port)}/ HTTP/1.1\r\n{head}{SMUGGLED}".encode("latin-1"))
            answer = await peer.message()
            assert (name, answer.status, answer.get("connection")) == (name, 400, "close")
            assert (await peer.rest(), name) == (b"", name)
    assert seen == []


async def test_bodies(site: sites.Site, server: tuple[int, list[sites.Message]]) -> None:
    """What came of the body may have been forwarded; its end never is, and the answer says so."""
    port, seen = server
    head = f"POST {site.prefix(port)}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for name, body in BODIES.items():
        peer = await site.call()
        await peer.send((head + body + SMUGGLED).encode())
        answer = await peer.message()
        assert (name, answer.status, answer.get("connection")) == (name, 400, "close")
        assert (await peer.rest(), name) == (b"", name)
    assert [message for message in seen if message.whole] == []


@pytest.mark.parametrize("version", ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/9", "HTTQ/1.1", "http/1.1", ""])
async def test_versions(site: sites.Site, server: tuple[int, list[sites.Message]], version: str) -> None:
    """Other versions are refused."""
    port, seen = server
    answer = await site.ask(f"GET {site.prefix(port)}/ {version}\r\nHost: x\r\n\r\n".encode())
    assert (answer.status, seen) == (400, [])


async def test_chunks_of_http_10(site: sites.Site, server: tuple[int, list[sites.Message]]) -> None:
    """That version has none."""
    port, seen = server
    head = f"POST {site.prefix(port)}/ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert ((await site.ask(head.encode())).status, seen) == (400, [])


async def test_what_comes_behind_the_last_request(site: sites.Site, server: tuple[int, list[sites.Message]]) -> None:
    """A caller that says `Connection: close` is believed: what it sends after that is nothing."""
    port, seen = server
    peer = await site.call()
    await peer.send(site.get(port, "/", "Connection: close") + site.get(port, "/smuggled"))
    assert (await peer.message()).body == b"ok"
    assert await peer.ended()
    assert len(seen) == 1


async def test_a_body_behind_a_request_for_an_upgrade(
    site: sites.Site, server: tuple[int, list[sites.Message]]
) -> None:
    """It is a body: the upgrade is left out, and what follows is the next request."""
    port, seen = server
    wishes = ("Connection: Upgrade", "Upgrade: h2c")
    for headers, body in (
        (("Content-Length: 3",), b"abc"),
        (("Transfer-Encoding: chunked",), b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        peer = await site.call()
        await peer.send(site.get(port, "/", *wishes, *headers, method="POST") + body + site.get(port, "/next"))
        assert (await peer.message()).body == b"ok"
        assert (await peer.message()).body == b"ok"
    assert [(one.start.split(" ")[1], one.body) for one in seen] == [("/", b"abc"), ("/next", b"")] * 2
    assert all(one.get("upgrade") is None for one in seen)


async def test_a_refused_upgrade(site: sites.Site, server: tuple[int, list[sites.Message]]) -> None:
    """What was sent behind it counts as requests again, since HTTP goes on."""
    port, seen = server
    peer = await site.call()
    await peer.send(site.get(port, "/", "Connection: Upgrade", "Upgrade: foo") + site.get(port, "/next"))
    for _ in range(2):
        assert (await peer.message()).body == b"ok"
    await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.message()).status == 200
    assert [one.start.split(" ")[1] for one in seen] == ["/", "/next"]


@pytest.mark.parametrize("filler", ["X: {}\r\n", "X-{}: y\r\n"])
async def test_heads_without_an_end(site: sites.Site, filler: str) -> None:
    """They are cut off at the limit, in one header or in many, and nothing is forwarded."""
    port = await site.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    peer = await site.call()
    await peer.send(f"GET {site.prefix(port)}/ HTTP/1.1\r\nHost: x\r\n{filler.split('{}', maxsplit=1)[0]}".encode())
    answered = False
    try:
        for _ in range(100):
            await peer.send(b"a" * 65536)
    except ConnectionError:
        answered = True
    if not answered:
        assert (await peer.message()).status == 400
    assert site.connections == [0]


async def test_too_many_headers(site: sites.Site) -> None:
    """128 are fine, more are not; trailers count."""
    port = await site.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await site.ask(site.get(port, "/", *["X: y"] * 127))).status == 200
    assert (await site.ask(site.get(port, "/", *["X: y"] * 128))).status == 400
    head = site.get(port, "/", "Transfer-Encoding: chunked", method="POST")
    assert (await site.ask(head + b"0\r\n" + b"X: y\r\n" * 127 + b"\r\n")).status == 400
