"""Connections that remember heads: whatever is taken without being parsed is what the parser would have found."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from traforo.api import protocols, servers


@dataclass
class Head:
    """What a head says."""

    method: bytes
    headers: list[tuple[bytes, bytes]]
    names: list[bytes]
    length: int
    chunked: bool

    def told(self) -> tuple[object, ...]:
        return self.method, tuple(self.headers), tuple(self.names)


class Exchange:
    """Answers at once; `seen` gets what it was given."""

    waiting_for_100_continue = False

    def __init__(self, connection: protocols.Protocol, head: Head, target: bytes, seen: list[object]) -> None:
        self.connection = connection
        self.head = head
        self.target = target
        self.seen = seen
        self.endless = target == b"/endless"
        self.keep_alive = (b"connection", b"close") not in head.headers
        self.response_complete = False
        self.body = b""
        self.started = self.ended = False

    @property
    def known(self) -> Head | None:
        return None if self.head.chunked else self.head

    def start(self) -> None:
        self.started = True
        self._answer()

    def feed(self, data: bytes) -> None:
        self.body += data

    def trailer(self, name: bytes, value: bytes) -> None:
        self.body += name + value

    def end(self) -> None:
        self.ended = True
        self._answer()

    def _answer(self) -> None:
        if self.started and self.ended and not self.endless:
            self.seen.append((self.head.told(), self.target, self.body))
            self.connection.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.response_complete = True
            self.connection.done(self)

    def flush(self) -> None:
        pass

    def fail(self) -> None:
        self.seen.append("failed")
        self.connection.transport.close()

    def cancel(self) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


class Takeover:
    """Takes everything, and counts what it did not have to read."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.repeated = 0

    def concerns(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        del target, headers
        return True

    def take(self, connection: protocols.Protocol) -> Exchange:
        headers = dict(connection.headers)
        head = Head(
            connection.parser.get_method(),
            list(connection.headers),
            list(connection.names),
            int(headers.get(b"content-length", b"0")),
            b"transfer-encoding" in headers,
        )
        return Exchange(connection, head, connection.url, self.seen)

    def again(self, connection: protocols.Protocol, target: bytes, known: Any) -> Exchange | None:
        if target == b"/elsewhere":
            return None
        self.repeated += 1
        return Exchange(connection, known, target, self.seen)


class Transport:
    """The other end of a connection is nobody."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None:
        del data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> None:
        del name

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@contextlib.contextmanager
def connected() -> Iterator[tuple[protocols.Protocol, Takeover]]:
    """Give a connection, in a loop that does not run."""
    takeover = Takeover()
    loop = asyncio.new_event_loop()
    config = uvicorn.Config(_app, log_config=None, lifespan="off")
    config.load()
    connection = protocols.Protocol(
        config=config, server_state=ServerState(), app_state={}, _loop=loop, takeover=takeover
    )
    connection.connection_made(Transport())  # type: ignore[arg-type]
    try:
        yield connection, takeover
    finally:
        connection.connection_lost(None)
        loop.close()


async def _app(scope: object, receive: object, send: object) -> None:
    """Never called."""


def told(pieces: Sequence[bytes]) -> tuple[list[object], int, bool]:
    """Return what a takeover gets of these pieces, how often it had nothing to read, and whether that was the end."""
    with connected() as (connection, takeover):
        for piece in pieces:
            connection.data_received(piece)
        return takeover.seen, takeover.repeated, connection.transport.is_closing()


GET = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Case: y\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    "first, second",
    [
        (GET, GET),
        (GET, GET.replace(b"/a", b"/b/c?d=%20&e")),
        (POST, POST),
        (POST, POST.replace(b"abc", b"\r\n\r")),
        (b"\r\n" + GET + b"\r\n", GET),
    ],
)
def test_a_head_that_is_known_is_not_read_again(first: bytes, second: bytes) -> None:
    """Its target and its body are its own."""
    found, repeated, _ = told([first, GET, POST, second])
    assert repeated == 1 + (first in {GET, POST})
    assert found == told([first + GET + POST + second])[0]
    assert len(found) == 4


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(GET.replace(b"GET", b"HEAD"), id="method"),
        pytest.param(GET.replace(b"Case", b"case"), id="case of a name"),
        pytest.param(GET.replace(b"GET ", b"GETH ").replace(b"\nHost", b"\nost"), id="a letter of a name"),
        pytest.param(GET.replace(b": y", b":  y"), id="space"),
        pytest.param(GET.replace(b"/1.1", b"/1.0"), id="version"),
        pytest.param(GET.replace(b" /a", b" *"), id="no path"),
        pytest.param(GET.replace(b" /a", b" http://x/a"), id="absolute"),
        pytest.param(GET.replace(b"/a", b"/a#b"), id="fragment"),
        pytest.param(GET.replace(b"/a", b"/\xff"), id="not ASCII"),
        pytest.param(GET.replace(b"/a", b"/a b"), id="space in the target"),
        pytest.param(GET.replace(b"/a", b"/" + b"a" * protocols.MAX_KNOWN_BYTES), id="long"),
        pytest.param(GET.replace(b"/a", b"/elsewhere"), id="not taken"),
        pytest.param(GET.replace(b" /a", b"  /a"), id="two spaces"),
        pytest.param(GET.replace(b"1.1\r\n", b"1.1\n"), id="bare LF"),
        pytest.param(GET + GET, id="two"),
        pytest.param(GET + b"G", id="and a piece"),
        pytest.param(GET + b"\r\n", id="and a line"),
        pytest.param(b"\r\n" + GET, id="after a line"),
        pytest.param(GET[:-1], id="incomplete"),
        pytest.param(POST + b"d", id="more body"),
        pytest.param(POST[:-1], id="less body"),
    ],
)
def test_anything_else_is_read(other: bytes) -> None:
    """So it is what it is without a memory."""
    found, repeated, closed = told([GET, POST, other])
    assert repeated == 0
    assert (found, closed) == (told([GET + POST + other])[0], told([GET + POST + other])[2])


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], id="chunks"),
        pytest.param([GET[:9], GET[9:]], id="in pieces"),
        pytest.param([GET.replace(b"X-Case: y", b"Upgrade: y\r\nConnection: upgrade")], id="upgrade"),
        pytest.param([POST + b"\r\n"], id="a line behind it"),
    ],
)
def test_what_is_not_remembered(first: list[bytes]) -> None:
    """A head that does not tell all of its request, and one that did not come in one piece with it."""
    found, repeated, closed = told([*first, *first])
    whole = told([piece[at : at + 1] for piece in first * 2 for at in range(len(piece))])
    assert (found, repeated, closed) == whole


def test_a_body_is_no_request() -> None:
    """Though it looks like one that is known, or its end and the next request do together."""
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    pieces = [GET, head % len(GET), GET, GET]
    found, repeated, _ = told(pieces)
    assert (found, repeated) == (told([b"".join(pieces)])[0], 1)
    tail = b"GET /x HTTP/1.1\r\nX: "
    pieces = [head % len(tail), tail + GET, tail + GET]
    assert told(pieces) == (told([b"".join(pieces)])[0], 0, False)


def test_a_memory_has_an_end() -> None:
    """It begins anew when it is full."""
    others = [GET.replace(b"y", b"%d" % number) for number in range(protocols.MAX_KNOWN)]
    assert told([GET, *others, GET])[1] == 0
    assert told([GET, *others[:-1], GET])[1] == 1


REQUESTS = st.builds(
    lambda method, target, headers, body: (
        b"%b %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n%b"
        % (method, target, headers, b"Content-Length: %d\r\n" % len(body) if body else b"", body)
    ),
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    st.sampled_from([b"/a", b"/b", b"/a#", b"/elsewhere"]),
    st.sampled_from([b"", b"X-A: b\r\n", b"x-a: b\r\n", b"X-A: c\r\n"]),
    st.sampled_from([b"", b"abc", b"\r\n\r\n", GET]),
)


@given(requests=st.lists(REQUESTS, max_size=8), cuts=st.sets(st.integers(0, 400), max_size=4))
def test_pieces_make_no_difference(requests: list[bytes], cuts: set[int]) -> None:
    """One request at a time, byte by byte, or cut anywhere: the same requests are found."""
    data = b"".join(requests)
    whole = told(requests)[0]
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert told([data[at : at + 1] for at in range(len(data))])[0] == whole
    assert told([data[start:end] for start, end in itertools.pairwise(places) if start < end])[0] == whole


def test_an_idle_connection_is_closed_in_time() -> None:
    """One timer serves all requests: when it is due, it waits for what is left since the last one."""
    with connected() as (connection, takeover):
        connection.data_received(GET)
        connection.data_received(GET)
        assert takeover.repeated == 1
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing()
        assert connection.timeout_keep_alive_task is not None
        connection.timeout_keep_alive_task.cancel()
        connection.timeout_keep_alive = 0
        connection.timeout_keep_alive_handler()
        assert connection.transport.is_closing()


@pytest.mark.parametrize("busy", [b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", GET[:9]])
def test_a_connection_in_use_is_not_idle(busy: bytes) -> None:
    """Neither while an answer is owed, nor in the middle of a request."""
    with connected() as (connection, _):
        connection.data_received(GET)
        connection.data_received(busy)
        connection.timeout_keep_alive = 0
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing()


@pytest.mark.parametrize("path, ended", [(b"/endless", True), (b"/mine", False)])
async def test_answers_without_end_do_not_hold_up_a_stop(path: bytes, ended: bool) -> None:
    """Those of a takeover neither; the others go on."""
    with connected() as (connection, _):
        connection.data_received(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        connection.end_endless()
        assert connection.transport.is_closing() == ended


async def test_a_server_ends_them() -> None:
    """All of them, before it waits for the others."""
    async with servers.serve(_app, "127.0.0.1:0", takeover=Takeover()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET + b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        stopping = asyncio.create_task(server.stop())
        assert await reader.read() == b""
        assert not (await asyncio.wait([stopping], timeout=servers.GRACE_SECONDS / 2))[1]
        writer.close()
