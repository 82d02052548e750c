"""Callers and servers that repeat themselves: nothing that was decided once is believed the next time."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes import sites
from traforo.api import protocols
from traforo.domain import clocks
from traforo.worker.ports import proxies

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the targets of the requests that were taken without being parsed."""
    found: list[bytes] = []
    again = proxies.Proxy.again

    def counted(self: proxies.Proxy, connection: protocols.Protocol, target: bytes, known: object) -> object:
        found.append(target)
        return again(self, connection, target, known)  # type: ignore[arg-type]

    monkeypatch.setattr(proxies.Proxy, "again", counted)
    return found


async def mirror(peer: sites.Peer) -> None:
    """Answer with what was asked."""
    while True:
        found = await peer.message()
        text = json.dumps({"start": found.start, "body": found.body.decode()} | sites.lower(found))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text.encode()))


async def told(peer: sites.Peer, request: bytes) -> dict[str, str]:
    """Return what a mirror says of a request."""
    await peer.send(request)
    found: dict[str, str] = json.loads((await peer.message()).body)
    return found


async def test_the_same_again(site: sites.Site, repeated: list[bytes]) -> None:
    """Each request has its own path, body and id; all else is the same."""
    port = await site.serve(mirror)
    peer = await site.call()
    first = await told(peer, site.get(port, "/a", "X-A: b"))
    second = await told(peer, site.get(port, "/b?traforo_traffic_token=x&c=%20", "X-A: b"))
    assert len(repeated) == 1
    assert second.pop("x-request-id") != first.pop("x-request-id")
    assert second == first | {"start": "GET /b?c=%20 HTTP/1.1"}
    for body in ("abc", "\r\n\r"):
        request = site.get(port, "/", "Content-Length: 3", method="POST") + body.encode()
        assert (await told(peer, request))["body"] == body
    assert len(repeated) == 2
    assert site.connections == [1]


async def test_another_port_and_another_sandbox(site: sites.Site, repeated: list[bytes]) -> None:
    """A request like the one before goes where its own target leads."""
    port, other = await site.serve(mirror), await site.say(OK)
    peer = await site.call()
    assert (await told(peer, site.get(port)))["host"] == f"localhost:{port}"
    await peer.send(site.get(other))
    assert (await peer.message()).body == b"ok"
    for path, status in ((site.prefix(70000) + "/", 400), ("/sandboxes/none/proxy/1/", 400), ("/healthz", 200)):
        await peer.send(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
        assert (await peer.message()).status == status
    assert (await told(peer, site.get(port)))["host"] == f"localhost:{port}"
    assert len(repeated) == 5


async def test_a_port_that_is_private_again(prod: sites.Site, repeated: list[bytes]) -> None:
    """It is so for the next request of a connection that could reach it."""
    port = await prod.say(OK)
    peer = await prod.call()
    for public, status in ((True, 200), (True, 200), (False, 401), (True, 200)):
        answer = await prod.client.post(f"/sandboxes/{prod.id}/ports/{port}", json={"public": public})
        assert answer.status_code == 200
        await peer.send(prod.get(port))
        assert (await peer.message()).status == status
    assert len(repeated) == 3


async def test_a_token_that_has_ended(prod: sites.Site, repeated: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens nothing any more, however often it did."""
    port = await prod.say(OK)
    peer = await prod.call()
    request = prod.get(port, "/", f"Authorization: {prod.client.headers['authorization']}")
    for seconds, status in ((0, 200), (0, 200), (100_000, 401)):
        now = prod.clock.now() + seconds
        monkeypatch.setattr(clocks.SystemClock, "now", lambda _, now=now: now)
        await peer.send(request)
        assert (await peer.message()).status == status
    assert len(repeated) == 2


async def test_a_sandbox_that_has_ended(site: sites.Site, repeated: list[bytes]) -> None:
    """It is gone for the next request."""
    port = await site.say(OK)
    peer = await site.call()
    for _ in range(2):
        await peer.send(site.get(port))
        assert (await peer.message()).status == 200
    assert (await site.client.delete(f"/sandboxes/{site.id}")).status_code < 300
    await peer.send(site.get(port))
    assert (await peer.message()).status in {404, 409}
    assert len(repeated) == 2


async def test_requests_are_counted_one_by_one(site: sites.Site, repeated: list[bytes]) -> None:
    """Parsed or not."""
    port = await site.say(OK)
    peer = await site.call()
    before = site.count("worker_port_requests_total", result="answered")
    for _ in range(5):
        await peer.send(site.get(port))
        await peer.message()
    assert len(repeated) == 4
    assert site.count("worker_port_requests_total", result="answered") == before + 5


async def test_a_server_that_goes_on_after_a_known_answer(site: sites.Site) -> None:
    """What it adds is nobody's answer."""

    async def serve(peer: sites.Peer) -> None:
        for number in range(4):
            await peer.message()
            await peer.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison" * (number == 2))

    port = await site.serve(serve)
    peer = await site.call()
    for _ in range(4):
        await peer.send(site.get(port))
        assert (await peer.message()).body == b"ok"
    assert site.connections == [2]


@pytest.mark.parametrize("framing, ended", [("text/event-stream", True), ("text/plain", False)])
async def test_a_stream_of_events_ends_with_the_worker(
    site: sites.Site, monkeypatch: pytest.MonkeyPatch, framing: str, ended: bool
) -> None:
    """Both ends of it, at once; any other answer may go on."""
    found: list[protocols.Protocol] = []
    gone = asyncio.Event()
    made = protocols.Protocol.connection_made

    def remembered(self: protocols.Protocol, transport: asyncio.Transport) -> None:
        found.append(self)
        made(self, transport)

    async def serve(peer: sites.Peer) -> None:
        await peer.message()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {framing}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await peer.send(head.encode() + b"1\r\nx\r\n")
        if not ended:
            await peer.send(b"1\r\ny\r\n0\r\n\r\n")
        await peer.ended()
        gone.set()

    monkeypatch.setattr(protocols.Protocol, "connection_made", remembered)
    port = await site.serve(serve)
    peer = await site.call()
    await peer.send(site.get(port))
    await peer.head()
    await asyncio.wait_for(peer.reader.readuntil(b"x\r\n"), sites.SECONDS)
    found[-1].end_endless()
    if ended:
        assert await peer.ended()
        await asyncio.wait_for(gone.wait(), sites.SECONDS)
    else:
        assert await asyncio.wait_for(peer.reader.readuntil(b"0\r\n\r\n"), sites.SECONDS) == b"1\r\ny\r\n0\r\n\r\n"
