"""Requests and answers through the proxy: whole, in order, as they were meant."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes import sites


async def echo(peer: sites.Peer) -> None:
    """Answer with what was asked, as JSON."""
    while True:
        found = await peer.message()
        content = {"start": found.start, "headers": found.headers, "body": found.body.decode("latin-1")}
        body = json.dumps(content | {"trailers": found.trailers}).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Case: Kept\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def test_path_form(site: sites.Site) -> None:
    """Path, query and headers arrive; the answer comes back with our request id and without a trace of us."""
    port = await site.serve(echo)
    answer = await site.ask(site.get(port, "/a%2Fb?x=1", "X-Mixed-Case: yes", "X-Request-Id: mine"))
    found = json.loads(answer.body)
    assert found["start"] == "GET /a%2Fb?x=1 HTTP/1.1"
    headers = dict(found["headers"])
    assert (headers["Host"], headers["X-Mixed-Case"]) == (f"localhost:{port}", "yes")
    assert headers["X-Forwarded-Prefix"] == site.prefix(port)
    assert headers["X-Traforo-Sandbox-Id"] == site.id
    assert headers["X-Request-Id"] == "mine"
    assert (answer.status, answer.get("x-case"), answer.get("X-Request-Id")) == (200, "Kept", "mine")
    assert answer.get("x-traforo-error") is None


async def test_host_form(site: sites.Site) -> None:
    """The whole host belongs to the sandbox, paths of the API included; the host arrives as it was sent."""
    port = await site.serve(echo)
    for path in ("/", "/healthz", "/sandboxes", site.prefix(1)):
        answer = await site.ask(f"GET {path} HTTP/1.1\r\nHost: {site.host(port)}\r\n\r\n".encode())
        found = json.loads(answer.body)
        assert found["start"] == f"GET {path} HTTP/1.1"
        assert dict(found["headers"])["Host"] == site.host(port)


async def test_many_requests_on_one_connection(site: sites.Site) -> None:
    """API and ports in turn, on one connection of the caller and one into the sandbox."""
    port = await site.serve(echo)
    peer = await site.call()
    for number in range(20):
        await peer.send(site.get(port, f"/{number}"))
        assert json.loads((await peer.message()).body)["start"] == f"GET /{number} HTTP/1.1"
        await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.message()).body == b'{"status":"ok"}'
    assert site.connections == [1]


async def test_pipelined_requests(site: sites.Site) -> None:
    """What is sent ahead is answered in order, whoever answers it, bodies included."""
    port = await site.serve(echo)
    peer = await site.call()
    prefix = site.prefix(port)
    post = f"POST {prefix}/p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode()
    chunks = f"POST {prefix}/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".encode()
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    await peer.send(
        site.get(port, "/1") + health + post + site.get(port, "/2") + chunks + health + site.get(port, "/3")
    )
    seen = []
    for _ in range(7):
        body = json.loads((await peer.message()).body)
        seen.append((body["start"].split(" ")[1], body["body"]) if "start" in body else ("health", ""))
    assert seen == [("/1", ""), ("health", ""), ("/p", "abc"), ("/2", ""), ("/c", "hi"), ("health", ""), ("/3", "")]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_requests_in_small_pieces(site: sites.Site, size: int) -> None:
    """It makes no difference where the network cuts a request."""
    port = await site.serve(echo)
    head = f"PUT {site.prefix(port)}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = head.encode() + b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nContent-Type: evil\r\n\r\n"
    peer = await site.call()
    for at in range(0, len(request), size):
        await peer.send(request[at : at + size])
        await asyncio.sleep(0)
    found = json.loads((await peer.message()).body)
    assert (found["body"], found["trailers"]) == ("hello world", [["X-Sum", "1"]])


async def test_answers_in_small_pieces(site: sites.Site) -> None:
    """Nor where it cuts an answer."""

    async def serve(peer: sites.Peer) -> None:
        while True:
            await peer.message()
            answer = (
                b"HTTP/1.1 203 Odd\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
            )
            for at in range(len(answer)):
                await peer.send(answer[at : at + 1])
                await asyncio.sleep(0)

    port = await site.serve(serve)
    peer = await site.call()
    for _ in range(3):
        await peer.send(site.get(port))
        answer = await peer.message()
        assert (answer.start, answer.body, answer.trailers) == ("HTTP/1.1 203 Odd", b"hello!", [("X-Sum", "1")])
    assert site.connections == [1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_methods(site: sites.Site, method: str) -> None:
    """Every method arrives; the answer to HEAD has no body, and the connections stay in step."""

    async def serve(peer: sites.Peer) -> None:
        while True:
            found = await peer.message()
            body = b"" if found.start.startswith("HEAD") else b"hello"
            name = found.start.split(" ")[0].encode()
            await peer.send(b"HTTP/1.1 200 OK\r\nX-Method: %b\r\nContent-Length: 5\r\n\r\n%b" % (name, body))

    port = await site.serve(serve)
    peer = await site.call()
    for _ in range(3):
        await peer.send(site.get(port, "/", method=method))
        answer = await peer.message(method=method)
        assert (answer.status, answer.get("x-method"), answer.get("content-length")) == (200, method, "5")
    assert site.connections == [1]


@pytest.mark.parametrize(
    "answer, status",
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ],
)
async def test_answers_without_a_body(site: sites.Site, answer: bytes, status: int) -> None:
    """They end with their head, and the connection goes on."""
    port = await site.say(answer)
    peer = await site.call()
    for _ in range(3):
        await peer.send(site.get(port))
        assert (await peer.message()).status == status
    assert site.connections == [1]


async def test_an_answer_that_ends_with_its_connection(site: sites.Site) -> None:
    """The caller gets chunks and keeps its connection; a caller of HTTP/1.0 gets the end of its own."""
    port = await site.say(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello", close=True)
    peer = await site.call()
    for _ in range(3):
        await peer.send(site.get(port))
        answer = await peer.message()
        assert (answer.body, answer.whole, answer.get("transfer-encoding")) == (b"hello", True, "chunked")
    await peer.send(site.get(port).replace(b"HTTP/1.1", b"HTTP/1.0"))
    old = await peer.message()
    assert (old.body, old.get("transfer-encoding"), old.get("connection")) == (b"hello", None, "close")


async def test_interim_answers(site: sites.Site) -> None:
    """`100 Continue` and others arrive when they are sent, before the body is; a caller of HTTP/1.0 gets none."""

    async def serve(peer: sites.Peer) -> None:
        while True:
            found = await peer.head()
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            if found.get("expect"):
                await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await peer.reader.readexactly(int(found.get("content-length") or 0))
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    port = await site.serve(serve)
    peer = await site.call()
    for _ in range(2):
        await peer.send(site.get(port, "/", "Expect: 100-continue", "Content-Length: 3", method="PUT"))
        early, go = await peer.head(), await peer.head()
        assert (early.status, early.get("link"), go.status) == (103, "</a>", 100)
        await peer.send(b"abc")
        assert (await peer.message()).body == b"abc"
    old = await site.ask(site.get(port).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert old.status == 200


async def test_a_server_that_does_not_want_the_body(site: sites.Site) -> None:
    """Refused before `100 Continue`, the connection closes: nobody could tell a body from a request."""

    async def serve(peer: sites.Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await peer.rest()

    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port, "/", "Expect: 100-continue", "Content-Length: 3", method="PUT"))
    answer = await peer.message()
    assert (answer.status, answer.get("connection")) == (413, "close")
    assert await peer.ended()


async def test_an_answer_before_the_end_of_the_body(site: sites.Site) -> None:
    """It arrives at once; the rest of the body is read for nothing, and the next request is served."""

    async def serve(peer: sites.Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await peer.rest()

    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port, "/", "Content-Length: 10", method="PUT") + b"12345")
    answer = await peer.message()
    assert (answer.status, answer.body) == (401, b"no")
    await peer.send(b"67890" + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.message()).body == b'{"status":"ok"}'


async def test_both_directions_at_once(site: sites.Site) -> None:
    """An answer may begin, and go on, while its request is still being sent."""

    async def serve(peer: sites.Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (size := int(await peer.reader.readuntil(b"\r\n"), 16)) != 0:
            data = await peer.reader.readexactly(size + 2)
            await peer.send(b"%x\r\n%b" % (size, data))
        await peer.send(b"0\r\n\r\n")
        await peer.rest()

    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port, "/", "Transfer-Encoding: chunked", method="POST"))
    assert (await peer.head()).status == 200
    for word in (b"one", b"three", b"seventeen"):
        chunk = b"%x\r\n%b\r\n" % (len(word), word)
        await peer.send(chunk)
        assert await asyncio.wait_for(peer.reader.readexactly(len(chunk)), sites.SECONDS) == chunk
    await peer.send(b"0\r\n\r\n")
    assert await asyncio.wait_for(peer.reader.readexactly(5), sites.SECONDS) == b"0\r\n\r\n"


async def test_server_sent_events_arrive_one_by_one(site: sites.Site) -> None:
    """Nothing is kept back until there is more of it."""
    gate = asyncio.Queue[bytes]()

    async def serve(peer: sites.Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while event := await gate.get():
            await peer.send(event)

    port = await site.serve(serve)
    async with site.client.stream("GET", site.prefix(port) + "/") as answer:
        lines = answer.aiter_lines()
        for number in range(3):
            gate.put_nowait(b"data: %d\n" % number)
            assert await asyncio.wait_for(anext(lines), sites.SECONDS) == f"data: {number}"
        gate.put_nowait(b"")
        assert [line async for line in lines] == []


async def test_redirects_stay_below_the_prefix(site: sites.Site) -> None:
    """In the path form a location of the server's is one of ours, and so is the path of a cookie."""
    port = await site.say(b"HTTP/1.1 302 F\r\nLocation: /b?c\r\nSet-Cookie: a=b; Path=/x\r\nContent-Length: 0\r\n\r\n")
    answer = await site.ask(site.get(port, "/a"))
    assert answer.get("location") == site.prefix(port) + "/b?c"
    assert answer.get("set-cookie") == f"a=b; Path={site.prefix(port)}/x"
    named = await site.ask(f"GET /a HTTP/1.1\r\nHost: {site.host(port)}\r\n\r\n".encode())
    assert named.get("location") == "/b?c"


async def test_pages_are_isolated_in_the_path_form_alone(site: sites.Site) -> None:
    """There they share a host with the API, which in `dev` mode asks for nothing."""
    port = await site.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert "sandbox" in str((await site.ask(site.get(port))).get("content-security-policy"))
    named = await site.ask(f"GET /a HTTP/1.1\r\nHost: {site.host(port)}\r\n\r\n".encode())
    assert named.get("content-security-policy") is None


async def test_what_is_told_about_requests(site: sites.Site) -> None:
    """Each is counted by its result, connections while they are open."""
    port = await site.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    peer = await site.call()
    await peer.send(site.get(port))
    await peer.message()
    await peer.send(site.get(1))
    assert (await peer.message()).get("x-traforo-error") == "port_unreachable"
    await peer.send(site.get(port).replace(b"sbx_", b"sbx-"))
    assert (await peer.message()).get("x-traforo-error") == "malformed_id"
    counts = [site.count("worker_port_requests_total", result=name) for name in ("answered", "failed", "refused")]
    assert counts == [1, 1, 1]
    assert site.count("worker_port_connections") == 1
    assert site.count("worker_http_request_duration_seconds_count", status_code="502") == 1
