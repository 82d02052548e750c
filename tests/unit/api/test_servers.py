import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import prometheus_client
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from traforo.api import answers, applications, bodies, limits, operations, protocols, servers
from traforo.domain import errors
from traforo.settings import addresses
from traforo.telemetry import metrics


def build(*, started: asyncio.Event | None = None, forever: asyncio.Event | None = None) -> applications.Application:
    router = operations.router()

    @router.post("/echo")
    async def echo(request: Request) -> Response:
        return answers.json({"bytes": len(await bodies.read(request))})

    @router.get("/wait")
    async def wait(request: Request) -> Response:
        if started is not None and forever is not None:
            started.set()
            await forever.wait()
        return answers.json({})

    @router.get("/endless")
    async def endless(_: Request) -> Response:
        return _Endless()

    measured = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
    return applications.build("test", [router], measured=measured, mode="dev", body_limits=limits.worker())


class _Endless(Response):
    """An answer that goes on for as long as somebody reads it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers.endless(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


class Peer:
    """A raw connection, to send what no client library would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, json.loads(body) if body else None

    async def closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """As `logs.configure` has it."""
    log = logging.getLogger("uvicorn.error")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture
async def server() -> AsyncIterator[servers.Server]:
    async with servers.serve(build(), "127.0.0.1:0") as found:
        yield found


@pytest.fixture
async def peer(server: servers.Server) -> AsyncIterator[Peer]:
    found = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
    yield found
    found.writer.close()


async def call(server: servers.Server, path: str = "/healthz") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    peer = Peer(reader, writer)
    try:
        await peer.send(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        status, _, _ = await peer.answer()
    finally:
        writer.close()
    return status


async def test_port_0_is_told(server: servers.Server) -> None:
    """The real port is known as soon as the server is there, and connections are accepted."""
    assert server.port > 0
    assert (server.url, server.address.port) == (f"http://127.0.0.1:{server.port}", server.port)
    assert await call(server) == 200


async def test_two_servers_share_one_loop(server: servers.Server) -> None:
    """`traforo up` runs both planes in one process; one stops without the other."""
    async with servers.serve(build(), "127.0.0.1:0") as other:
        assert other.port != server.port
        assert (await call(server), await call(other)) == (200, 200)
    assert await call(server) == 200
    with pytest.raises(OSError, match="Connect call failed"):
        await call(other)


async def test_answers_without_end_do_not_hold_up_a_stop(server: servers.Server) -> None:
    """Their readers are cut off at once, and can tell: the answer is not complete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"transfer-encoding: chunked" in await reader.readuntil(b"begun\r\n")
    stopping = asyncio.create_task(server.stop())
    assert await reader.read() == b""
    assert not (await asyncio.wait([stopping], timeout=servers.GRACE_SECONDS / 2))[1]
    writer.close()


async def test_stopping_twice_is_fine(server: servers.Server) -> None:
    """And waiting for a server that has stopped returns."""
    await server.stop()
    await server.stop()
    await server.wait()


async def test_signals_are_left_to_the_process() -> None:
    """They belong to whoever runs several servers; uvicorn would take them."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with servers.serve(build(), "127.0.0.1:0") as server:
        assert await call(server) == 200
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_port_in_use_is_told_in_words(server: servers.Server) -> None:
    """The error names the address."""
    with pytest.raises(errors.InvalidRequest, match=f"cannot listen on '127.0.0.1:{server.port}'") as caught:
        await servers.start(build(), server.address)
    assert caught.value.fields == {"field": "listen"}


async def test_name_that_does_not_resolve_is_told_in_words() -> None:
    """As for a port in use."""
    with pytest.raises(errors.InvalidRequest, match=r"cannot listen on 'no\.such\.invalid:80'"):
        await servers.start(build(), addresses.Address("no.such.invalid", 80))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the host has no IPv6")
async def test_wildcard_of_ipv6_takes_ipv4_as_well() -> None:
    """`[::]` means every interface."""
    async with servers.serve(build(), "[::]:0") as server:
        assert await call(server) == 200
        assert server.url == f"http://127.0.0.1:{server.port}"


async def test_running_request_ends_before_the_server_does() -> None:
    """A graceful stop breaks nothing off."""
    started, forever = asyncio.Event(), asyncio.Event()
    server = await servers.start(build(started=started, forever=forever), "127.0.0.1:0")
    request = asyncio.create_task(call(server, "/wait"))
    await started.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    forever.set()
    assert await request == 200
    await stopping


async def test_request_without_an_end_is_told_and_cut_off() -> None:
    """The server stops within its limit all the same; it may be asked again elsewhere, or later."""
    started, forever = asyncio.Event(), asyncio.Event()
    server = await servers.start(build(started=started, forever=forever), "127.0.0.1:0", grace=1)
    request = asyncio.create_task(call(server, "/wait"))
    await started.wait()
    await server.stop()
    assert await request == 503


def test_nagle_is_off_on_uvloop() -> None:
    """An answer is never held back for a delayed acknowledgement."""

    async def main() -> tuple[str, int]:
        async with servers.serve(build(), "127.0.0.1:0") as server:
            peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
            await peer.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            await peer.answer()
            [connection] = server._inner.server_state.connections
            accepted = connection.transport.get_extra_info("socket")
            option: int = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            peer.writer.close()
            return type(asyncio.get_running_loop()).__module__, option

    module, option = servers.run(main())
    assert (module.partition(".")[0], bool(option)) == ("uvloop", True)


async def test_connection_is_kept(peer: Peer) -> None:
    """Requests follow one another on one connection; the answer says nothing of the server's make."""
    for _ in range(3):
        await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
        status, headers, body = await peer.answer()
        assert (status, body, "server" in headers) == (200, {"bytes": 3}, False)


async def test_body_that_is_somewhat_too_long_costs_no_connection(peer: Peer) -> None:
    """The rest is thrown away, and the next request is understood."""
    size = limits.DEFAULT + 1
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    status, _, body = await peer.answer()
    assert (status, body["error"]["code"]) == (413, "too_large")
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    assert (await peer.answer())[0] == 200


async def test_body_that_is_far_too_long_gets_its_answer(peer: Peer) -> None:
    """The sender sees the error, not a reset, though it sends on; then the connection is closed."""
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(48):
        await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    await peer.send(b"0\r\n\r\n")
    status, headers, body = await peer.answer()
    assert (status, headers["connection"], body["error"]["limit"]) == (413, "close", limits.DEFAULT)
    assert await peer.closed()


async def test_continue_is_sent_only_for_a_body_that_is_wanted(peer: Peer) -> None:
    """A client that asks first is spared the upload."""
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n")
    status, headers, _ = await peer.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert await peer.closed()


async def test_continue_is_sent_for_a_body_that_is_wanted(peer: Peer) -> None:
    """Then the body is read as any other."""
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert (await peer.answer())[0] == 100
    await peer.send(b"abc")
    assert (await peer.answer())[::2] == (200, {"bytes": 3})


@pytest.mark.parametrize(
    "data, words",
    [
        (b"nonsense\r\n\r\n", "not HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", "not HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "not HTTP/1.1"),
        (
            b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
            "not HTTP/1.1",
        ),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", "not HTTP/1.1"),
        (b"GET /" + b"x" * protocols.MAX_URL_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n", "16384 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", "128 headers"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * protocols.MAX_HEAD_BYTES + b"\r\n\r\n", "65536 bytes"),
    ],
    ids=["noise", "header", "lengths", "smuggling", "target", "long target", "many headers", "large headers"],
)
async def test_request_that_cannot_be_read_is_refused_in_the_usual_form(peer: Peer, data: bytes, words: str) -> None:
    """Before any route has seen it; then the connection closes."""
    await peer.send(data)
    status, headers, body = await peer.answer()
    assert (status, headers["connection"], body["error"]["code"]) == (400, "close", "invalid_request")
    assert body["error"]["request_id"].lower() == headers["x-request-id"]
    assert words in body["error"]["message"]
    assert await peer.closed()


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /he", b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_peer_that_stalls_is_cut_off(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """A connection without a whole request is not held open for ever."""
    monkeypatch.setattr(protocols, "STALL_SECONDS", 0.05)
    async with servers.serve(build(), "127.0.0.1:0") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = Peer(reader, writer)
        await peer.send(data)
        assert await peer.closed()
        writer.close()


async def test_peer_that_waits_for_its_answer_is_not_cut_off() -> None:
    """A long poll is the server's silence, not the peer's."""
    started, forever = asyncio.Event(), asyncio.Event()
    async with servers.serve(build(started=started, forever=forever), "127.0.0.1:0") as server:
        request = asyncio.create_task(call(server, "/wait"))
        await started.wait()
        [connection] = server._inner.server_state.connections
        assert isinstance(connection, protocols.Protocol)
        connection._heard_at -= protocols.STALL_SECONDS
        connection._look()
        forever.set()
        assert await request == 200


@pytest.mark.parametrize("begin", [b"0\r\nX: ", b"0\r\nX", b"3;a="], ids=["trailer", "name of a trailer", "extension"])
async def test_a_body_that_never_gets_anywhere_is_refused(peer: Peer, server: servers.Server, begin: bytes) -> None:
    """What stands beside the chunks of a body has no end either, and the parser would keep it."""
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + begin)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            for _ in range(8 * protocols.MAX_HEAD_BYTES // 4096):
                await peer.send(b"a" * 4096)
            await peer.reader.read()
    assert await call(server) == 200


async def test_many_small_chunks_are_no_offence(peer: Peer) -> None:
    """Only what brings nothing is counted."""
    await peer.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100):
        await peer.send(b"1;a=" + b"b" * 1000 + b"\r\nx\r\n")
    await peer.send(b"0\r\nX: y\r\n\r\n")
    status, _, body = await peer.answer()
    assert (status, body) == (200, {"bytes": 100})


async def test_connections_have_a_limit(server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there may be is answered at once and closed; when another leaves there is room again."""
    monkeypatch.setattr(protocols, "MAX_CONNECTIONS", 2)
    async with contextlib.AsyncExitStack() as stack:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        for _, writer in held:
            stack.callback(writer.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        stack.callback(writer.close)
        told = await asyncio.wait_for(reader.read(), 10)
        assert told.startswith(b"HTTP/1.1 429 ")
        assert b"2 connections are open" in told
        held[0][1].close()
        await held[0][1].wait_closed()
        for _ in range(100):
            if await call(server) == 200:
                return
            await asyncio.sleep(0.01)
        pytest.fail("there is no room again")
