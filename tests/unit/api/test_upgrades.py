"""WebSockets over real connections: what RFC 6455 asks for, and what hostile peers send instead."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client
import pytest

from tests.fakes import peers
from tests.fakes.peers import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, frame
from traforo.api import applications, operations, servers, sockets, upgrades
from traforo.domain import errors
from traforo.telemetry import metrics


class Site:
    """A server with some WebSockets."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.taken: list[bytes | str | None] = []
        self.ended = asyncio.Event()
        self.port = 0

    def build(self) -> applications.Application:
        router = operations.router()

        @router.websocket("/echo")
        async def echo(socket: sockets.Socket) -> None:
            await socket.accept()
            while (message := await socket.receive()) is not None:
                await socket.send(message)

        @router.websocket("/hold/{name}")
        async def hold(socket: sockets.Socket, name: str) -> None:
            await socket.accept()
            await self.gate.wait()
            while (message := await socket.receive()) is not None:
                self.taken.append(message)
            self.ended.set()
            assert name

        @router.websocket("/refuse")
        async def refuse(socket: sockets.Socket) -> None:
            raise errors.NotFound("no such thing", kind="thing", id=str(socket.connection.headers.get("authorization")))

        @router.websocket("/fail/{when}")
        async def fail(socket: sockets.Socket, when: str) -> None:
            if when == "late":
                await socket.accept()
                await socket.receive()
            if when == "conflict":
                await socket.accept()
                raise errors.Conflict("x" * 200 + "é" * 20)
            raise ZeroDivisionError

        @router.websocket("/flood")
        async def flood(socket: sockets.Socket) -> None:
            await socket.accept()
            try:
                for number in range(1_000_000):
                    await socket.send(b"x" * 65_536)
                    self.taken.append(str(number))
            finally:
                self.ended.set()

        @router.get("/plain")
        async def plain(_: Any) -> Any:
            raise NotImplementedError

        measured = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
        return applications.build("test", [router], measured=measured, mode="dev")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    app = await asyncio.to_thread(found.build)
    async with servers.serve(app, "127.0.0.1:0", grace=0.1) as server:
        found.port = server.port
        yield found
        found.gate.set()


@pytest.fixture
async def peer(site: Site) -> AsyncIterator[peers.Peer]:
    async with peers.connected(site.port) as found:
        assert (await found.shake("/echo"))[0] == 101
        yield found


async def closed(peer: peers.Peer, code: int) -> None:
    """Check that the server ends it with this code, and then the connection."""
    assert (await peer.until_close()).code == code
    peer.writer.write_eof()
    assert await peer.over()


async def test_handshake(site: Site) -> None:
    """The answer to a handshake has the key's digest, the request's id, and nothing that was not asked for."""
    async with peers.connected(site.port) as peer:
        status, _ = await peer.shake(
            "/echo", {"X-Request-Id": "mine", "Sec-WebSocket-Extensions": "permessage-deflate"}
        )
        assert (status, peer.headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        assert peer.headers["x-request-id"] == "mine"
        assert {"sec-websocket-extensions", "sec-websocket-protocol", "server"} & peer.headers.keys() == set()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, upgrades.MAX_MESSAGE_BYTES])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_sizes(peer: peers.Peer, size: int, opcode: int) -> None:
    """Messages of every size come back as they are."""
    payload = b"*" * size
    await peer.send(frame(opcode, payload))
    assert await peer.receive() == Frame(opcode, payload)


async def test_bytes_one_by_one(peer: peers.Peer) -> None:
    """It does not matter how the network cuts a frame."""
    for byte in frame(BINARY, b"in pieces"):
        await peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await peer.receive() == Frame(BINARY, b"in pieces")


async def test_fragments(peer: peers.Peer) -> None:
    """A message in fragments is one message, empty fragments and pings between them included."""
    await peer.send(
        frame(TEXT, b"a\xc3", fin=False),
        frame(CONT, b"", fin=False),
        frame(PING, b"there?"),
        frame(CONT, b"\xa4", fin=False),
        frame(CONT, b"z"),
        frame(BINARY, b"next"),
    )
    found = [await peer.receive() for _ in range(3)]
    assert found == [Frame(PONG, b"there?"), Frame(TEXT, "aäz".encode()), Frame(BINARY, b"next")]


@pytest.mark.parametrize("payload", [b"", b"x", b"y" * 125])
async def test_ping(peer: peers.Peer, payload: bytes) -> None:
    """A ping is answered with its own payload; a pong nobody asked for is nothing."""
    await peer.send(frame(PONG, b"unasked"), frame(PING, payload))
    assert await peer.receive() == Frame(PONG, payload)


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, b"x", masked=False),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(CLOSE, b"x" * 126),
        frame(CLOSE, b"x"),
        frame(3, b"x"),
        frame(7),
        frame(11),
        frame(15),
        frame(TEXT, b"x", rsv=4),
        frame(TEXT, b"x", rsv=1),
        frame(PING, b"x", rsv=2),
        frame(CONT, b"x"),
        frame(CONT, b"x", fin=False),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
        frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False),
        frame(TEXT, b"x") + frame(CONT, b"y"),
        peers.close(999),
        peers.close(1004),
        peers.close(1005),
        peers.close(1006),
        peers.close(1016),
        peers.close(2999),
        peers.close(5000),
        peers.close(65_535),
    ],
)
async def test_violations(peer: peers.Peer, sent: bytes) -> None:
    """What the protocol forbids ends it with 1002."""
    await peer.send(sent)
    await closed(peer, 1002)


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xce\xba\xed\xa0\x80"),
        frame(TEXT, b"\xf4\x90\x80\x80"),
        frame(TEXT, b"\xc0\xaf"),
        frame(TEXT, b"cut \xe2\x82"),
        frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("),
        peers.close(1000, b"\xff"),
    ],
)
async def test_text_that_is_none(peer: peers.Peer, sent: bytes) -> None:
    """Text that is not UTF-8 ends it with 1007."""
    await peer.send(sent)
    await closed(peer, 1007)


@pytest.mark.parametrize(
    "sent",
    [
        frame(BINARY, length=upgrades.MAX_MESSAGE_BYTES + 1),
        frame(BINARY, length=2**62),
        frame(BINARY, b"x" * upgrades.MAX_MESSAGE_BYTES, fin=False) + frame(CONT, b"y"),
    ],
)
async def test_too_large(peer: peers.Peer, sent: bytes) -> None:
    """A message over the limit ends it with 1009, as soon as it says how long it is."""
    await peer.send(sent)
    await closed(peer, 1009)


async def test_sender_of_too_much_gets_to_know(peer: peers.Peer) -> None:
    """The close frame arrives although its peer goes on sending for a while."""
    await peer.send(frame(BINARY, length=1 << 40), b"x" * 1_000_000)
    await peer.send(b"x" * 1_000_000)
    await closed(peer, 1009)


async def test_length_with_its_highest_bit(peer: peers.Peer) -> None:
    """A length of 64 bits is taken for large, not for negative."""
    await peer.send(bytes([0x82, 0xFF]) + b"\xff" * 8 + b"mask")
    assert (await peer.until_close()).code in {1002, 1009}


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 3999, 4000, 4999])
async def test_close_is_confirmed(peer: peers.Peer, code: int) -> None:
    """A close comes back with its own code, and then the connection ends."""
    await peer.send(peers.close(code, "tschüß".encode()))
    await closed(peer, code)


async def test_close_without_code(peer: peers.Peer) -> None:
    """A close that says nothing is confirmed by one that says nothing."""
    await peer.send(frame(CLOSE))
    assert await peer.receive() == Frame(CLOSE, b"")


async def test_nothing_counts_after_a_close(site: Site) -> None:
    """What comes before a close is taken in, and what comes behind it is not."""
    site.gate.set()
    async with peers.connected(site.port) as peer:
        await peer.shake("/hold/x")
        await peer.send(frame(TEXT, b"before"), peers.close(1000), frame(TEXT, b"behind"), frame(PING))
        assert (await peer.receive()).opcode == CLOSE
        peer.writer.write_eof()
        assert await peer.over()
        await site.ended.wait()
    assert site.taken == ["before"]


async def test_end_is_told(site: Site) -> None:
    """The route gets None when its peer closes, or just goes away."""
    for goodbye in (peers.close(1000), b""):
        site.gate.set()
        site.ended.clear()
        async with peers.connected(site.port) as peer:
            await peer.shake("/hold/x")
            await peer.send(goodbye)
        await site.ended.wait()


async def test_peer_is_not_read_ahead_of_its_route(site: Site) -> None:
    """While the route does not take messages its peer cannot send more than a little, and none is lost."""
    piece = frame(BINARY, b"x" * 500_000)
    async with peers.connected(site.port) as peer:
        await peer.shake("/hold/x")
        sent = await peer.send_until_stuck(piece, 100)
        assert sent < 100
        site.gate.set()
        await peer.writer.drain()
        await peer.send(peers.close(1000))
        await peer.until_close()
        await site.ended.wait()
    assert [len(message or b"") for message in site.taken] == [500_000] * sent


async def test_sender_waits_for_its_peer(site: Site) -> None:
    """A peer that does not read makes the sender wait, and its going away ends that."""
    async with peers.connected(site.port) as peer:
        await peer.shake("/flood")
        count = -1
        while count != len(site.taken):
            count = len(site.taken)
            await asyncio.sleep(0.3)
        assert 0 < count < 1000
        peer.writer.transport.abort()
    await site.ended.wait()


async def test_pings_without_end(site: Site) -> None:
    """A peer that sends nothing but pings is told to stop."""
    async with peers.connected(site.port) as peer:
        await peer.shake("/echo")
        await peer.send(frame(PING) * (upgrades.MAX_CONTROL_FRAMES + 1))
        await closed(peer, 1008)


async def test_silence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent peer is asked whether it is there, and cut off when it does not answer."""
    monkeypatch.setattr(upgrades, "PING_SECONDS", 0.05)
    async with peers.connected(site.port) as peer:
        await peer.shake("/echo")
        asked = [await peer.receive() for _ in range(2)]
        assert {one.opcode for one in asked} == {PING}
        assert await until_reset(peer)


async def until_reset(peer: peers.Peer) -> bool:
    try:
        while True:
            await peer.receive()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return True


async def test_answers_keep_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers is kept; so is one whose messages nobody takes, since its answers wait behind them."""
    monkeypatch.setattr(upgrades, "PING_SECONDS", 0.05)
    async with peers.connected(site.port) as peer:
        await peer.shake("/hold/x")
        await peer.send(frame(BINARY, b"waits"))
        for _ in range(6):
            assert (await peer.receive()).opcode == PING
        site.gate.set()
        await peer.send(peers.close(1000))
        await peer.until_close()
    async with peers.connected(site.port) as peer:
        await peer.shake("/echo")
        for _ in range(6):
            assert (await peer.receive()).opcode == PING
            await peer.send(frame(PONG))


@pytest.mark.parametrize(
    "path, headers, status, code",
    [
        ("/nowhere", {}, 404, "not_found"),
        ("/plain", {}, 404, "not_found"),
        ("/refuse", {}, 404, "not_found"),
        ("/fail/early", {}, 500, "internal"),
        ("/echo", {"Origin": "http://elsewhere"}, 403, "forbidden"),
        ("/echo", {"Sec-WebSocket-Version": "8"}, 400, "invalid_request"),
        ("/echo", {"Sec-WebSocket-Version": ""}, 400, "invalid_request"),
        ("/echo", {"Sec-WebSocket-Key": ""}, 400, "invalid_request"),
        ("/echo", {"Sec-WebSocket-Key": "c2hvcnQ="}, 400, "invalid_request"),
        ("/echo", {"Authorization": "Bearer " + "x" * 9000}, 400, "invalid_request"),
        ("/echo?" + "x" * 9000, {}, 400, "invalid_request"),
        ("/echo?" + "a=b&" * 101 + "access_token=x", {}, 400, "invalid_request"),
    ],
)
async def test_refusals(site: Site, path: str, headers: dict[str, str], status: int, code: str) -> None:
    """Before the handshake an error is an HTTP answer like every other."""
    async with peers.connected(site.port) as peer:
        found, body = await peer.shake(path, headers)
        assert (found, body["error"]["code"]) == (status, code)
        assert body["error"]["request_id"] == peer.headers["x-request-id"]
        assert await peer.over()


@pytest.mark.parametrize("behind", [frame(TEXT, b"early"), b"x", b"GET / HTTP/1.1\r\n\r\n"])
async def test_impatient_peer(site: Site, behind: bytes) -> None:
    """What is sent before the handshake is answered is not silently lost: the handshake is refused."""
    async with peers.connected(site.port) as peer:
        head = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        await peer.send(head + behind)
        assert (await peer.reader.readline()).split()[1] == b"400"


async def test_own_origin(site: Site) -> None:
    """A page of this very server may open WebSockets."""
    async with peers.connected(site.port) as peer:
        assert (await peer.shake("/echo", {"Host": "here:1", "Origin": "http://here:1"}))[0] == 101


async def test_plain_request_is_no_handshake(site: Site) -> None:
    """Without the upgrade there is no such route."""
    async with peers.connected(site.port) as peer:
        status, body = await peer.shake("/echo", {"Upgrade": "", "Connection": ""})
        assert (status, body["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path, headers, seen",
    [
        ("/refuse?access_token=abc", {}, "Bearer abc"),
        ("/refuse?a=1&access_token=a%2Bc", {}, "Bearer a+c"),
        ("/refuse", {"Sec-WebSocket-Protocol": "traforo, traforo.token.abc"}, "Bearer abc"),
        ("/refuse?access_token=abc", {"Authorization": "Bearer real"}, "Bearer real"),
        ("/refuse", {}, "None"),
    ],
)
async def test_credentials(site: Site, path: str, headers: dict[str, str], seen: str) -> None:
    """A token may come in the query or as a subprotocol; the header wins."""
    async with peers.connected(site.port) as peer:
        assert (await peer.shake(path, headers))[1]["error"]["id"] == seen


async def test_tokens_are_not_logged(site: Site, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    """No line of any log has a token of the query."""
    caplog.set_level(logging.DEBUG)
    async with peers.connected(site.port) as peer:
        await peer.shake("/refuse?access_token=hush-hush")
        await peer.over()
    captured = capsys.readouterr()
    assert "hush-hush" not in caplog.text + captured.out + captured.err


@pytest.mark.parametrize(
    "offered, chosen", [("traforo, traforo.token.x", "traforo"), ("traforo.token.x", "traforo.token.x"), ("a, b", "a")]
)
async def test_subprotocols(site: Site, offered: str, chosen: str) -> None:
    """One of the offered subprotocols is chosen, and the one with the token only if there is no other."""
    async with peers.connected(site.port) as peer:
        assert (await peer.shake("/echo", {"Sec-WebSocket-Protocol": offered}))[0] == 101
        assert peer.headers["sec-websocket-protocol"] == chosen


async def test_errors_after_the_handshake(site: Site) -> None:
    """They are the code of its end: 4000 and the HTTP status, with as much of the message as fits; 1011 for defects."""
    async with peers.connected(site.port) as peer:
        await peer.shake("/fail/conflict")
        found = await peer.until_close()
        assert (found.code, found.payload[2:]) == (4409, b"x" * 123)
    async with peers.connected(site.port) as peer:
        await peer.shake("/fail/late")
        await peer.send(frame(TEXT, b"now"))
        found = await peer.until_close()
        assert (found.code, b"ZeroDivision" in found.payload) == (1011, False)


async def test_server_that_stops() -> None:
    """Peers are told that the server stops, and those that do not confirm do not hold it up."""
    site = Site()
    app = await asyncio.to_thread(site.build)
    async with servers.serve(app, "127.0.0.1:0", grace=0.1) as server, peers.connected(server.port) as peer:
        await peer.shake("/echo")
        await server.stop()
        assert (await peer.until_close()).code == 1012


async def test_junk(site: Site) -> None:
    """Random bytes after the handshake end that connection and nothing else."""
    for seed in range(50):
        junk = bytes((seed * 31 + position * 17) % 256 for position in range(300))
        async with peers.connected(site.port) as peer:
            await peer.shake("/echo")
            await peer.send(junk)
            peer.writer.write_eof()
            await until_reset(peer)
    async with peers.connected(site.port) as peer:
        assert (await peer.shake("/echo"))[0] == 101
        await peer.send(frame(TEXT, json.dumps({"still": "there"}).encode()))
        assert (await peer.receive()).payload == b'{"still": "there"}'
