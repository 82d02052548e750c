"""Answers whose heads are remembered: whatever is taken without being parsed is what the parser would have found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.ports import answers, heads, upstreams


class Transport:
    """The other end of a connection is nobody."""

    def __init__(self) -> None:
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Reader:
    """Writes down what it is told of one answer."""

    def __init__(self, request: heads.Request, *, sent: bool = True) -> None:
        self.request = request
        self.sent = sent
        self.told: list[object] = []
        self.data = b""

    def interim(self, answer: answers.Answer) -> None:
        self.told.append(("interim", answer.status))

    def head(self, answer: answers.Answer) -> None:
        self.told.append(answer)

    def body(self, data: bytes) -> None:
        self.data += data

    def flush_answer(self) -> None:
        pass

    def complete(self, trailers: list[heads.Header]) -> None:
        self.told.append(("complete", trailers))

    def switched(self, answer: answers.Answer, rest: bytes) -> None:
        self.told.append(("switched", answer, rest))

    def broken(self, error: errors.TraforoError, *, stale: bool) -> None:
        self.told.append(("broken", str(error), stale))

    def pause_feeding(self) -> None:
        pass

    def resume_feeding(self) -> None:
        pass


class Forgetful(dict[bytes, answers.Answer]):
    """Remembers nothing."""

    def __setitem__(self, head: bytes, answer: answers.Answer) -> None:
        del head, answer


Memory = dict[bytes, answers.Answer]
GET = heads.Request(b"GET")


def connected(known: Memory) -> tuple[upstreams.Upstream, list[upstreams.Upstream]]:
    """Return a connection, and where it puts itself when it is free."""
    free: list[upstreams.Upstream] = []
    upstream = upstreams.Upstream(memoryview(bytearray(upstreams.READ_BYTES)), free.append, lambda _: None, known)
    upstream.connection_made(Transport())  # type: ignore[arg-type]
    return upstream, free


def receive(upstream: upstreams.Upstream, data: bytes) -> None:
    """Have a piece come in."""
    upstream.get_buffer(-1)[: len(data)] = data
    upstream.buffer_updated(len(data))


def told(known: Memory, *pairs: tuple[Reader, Sequence[bytes]]) -> list[tuple[list[object], bytes, bool, bool]]:
    """Return what readers are told, each of the pieces for it, and how it ended, until the connection is of no use."""
    upstream, free = connected(known)
    found: list[tuple[list[object], bytes, bool, bool]] = []
    for reader, pieces in pairs:
        if not upstream.usable:
            break
        free.clear()
        upstream.serve(reader)
        for piece in pieces:
            receive(upstream, piece)
        found.append((reader.told, reader.data, upstream.usable, bool(free)))
    return found


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
OTHERS = (
    OK.replace(b"hello", b"HELLO"),
    OK.replace(b"5", b"4"),
    OK.replace(b"5", b"6"),
    OK.replace(b"X-A: b", b"Connection: close"),
    OK.replace(b"X-A: b", b"Transfer-Encoding: chunked"),
    OK.replace(b"X-A: b", b"Content-Length: 5"),
    OK.replace(b"/1.1", b"/1.0"),
    OK.replace(b"200", b"304"),
    OK.replace(b"OK\r\n", b"OK\n"),
    OK.replace(b"hello", b"hello!"),
    OK[:-1],
    OK + b"\r\n",
    OK + OK,
    b"\r\n\r\n" + OK,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    EMPTY + b"\r\n",
    EMPTY + b"x",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nhello",
    b"HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"nonsense",
)


@pytest.mark.parametrize("answer", [OK, EMPTY])
def test_a_head_that_is_known_is_not_read_again(answer: bytes) -> None:
    """The very same record comes again, and the connection can be used again."""
    readers = [Reader(GET) for _ in range(3)]
    found = told({}, *[(reader, [answer]) for reader in readers])
    assert found == told(Forgetful(), *[(Reader(GET), [answer]) for _ in readers])
    assert found[0] == found[1] == found[2]
    assert readers[0].told[0] is readers[1].told[0] is readers[2].told[0]


def test_connections_share_what_is_known() -> None:
    """As long as they are of one sandbox."""
    known: Memory = {}
    first, second = Reader(GET), Reader(GET)
    told(known, (first, [OK]))
    told(known, (second, [OK]))
    assert first.told[0] is second.told[0]


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs(other: bytes) -> None:
    """It is what it is without a memory, before and after an answer that is remembered."""
    for order in ([OK, EMPTY, other, OK], [other, other, OK, OK]):
        remembered = told({}, *[(Reader(GET), [piece]) for piece in order])
        assert remembered == told(Forgetful(), *[(Reader(GET), [piece]) for piece in order])


@pytest.mark.parametrize(
    "request_",
    [heads.Request(b"HEAD"), heads.Request(b"GET", upgrade=b"x"), heads.Request(b"POST", framing=heads.Framing.LENGTH)],
)
def test_the_same_head_for_another_request(request_: heads.Request) -> None:
    """What has no body for HEAD has one for GET, whichever came first."""
    for order in ([GET, request_, GET], [request_, GET, request_]):
        pairs = [(Reader(one), [OK[: -5 if one.method == b"HEAD" else None]]) for one in order]
        again = [(Reader(one), [OK[: -5 if one.method == b"HEAD" else None]]) for one in order]
        assert told({}, *pairs) == told(Forgetful(), *again)


@pytest.mark.parametrize("answer", [OK, OK[:-5]])
@pytest.mark.parametrize("order", [(b"GET", b"HEAD", b"GET"), (b"HEAD", b"GET", b"HEAD")])
def test_the_wrong_answer_for_a_method(answer: bytes, order: tuple[bytes, ...]) -> None:
    """A body that must not be there, and one that is still to come."""
    pairs = [(Reader(heads.Request(method)), [answer]) for method in order]
    again = [(Reader(heads.Request(method)), [answer]) for method in order]
    assert told({}, *pairs) == told(Forgetful(), *again)


def test_a_known_answer_within_another() -> None:
    """In the middle of a head, or of a body, it is a part of that."""
    for pieces in (
        [b"HTTP/1.1 200 OK\r\nX-B: ", OK],
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK), OK],
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK],
    ):
        assert told({}, (Reader(GET), [OK]), (Reader(GET), pieces)) == told(
            Forgetful(), (Reader(GET), [OK]), (Reader(GET), pieces)
        )


def test_an_early_answer() -> None:
    """A connection into which a request was not written as a whole is of no use, however well its answer is known."""
    known: Memory = {}
    told(known, (Reader(GET), [OK]))
    found = told(known, (Reader(GET, sent=False), [OK]))
    assert found[0][1:] == (b"hello", False, False)


def test_what_is_not_remembered() -> None:
    """A head that is long, one that came in pieces, and one after which the connection ends."""
    for pieces in (
        [OK.replace(b"b\r\n", b"b" * upstreams.MAX_KNOWN_BYTES + b"\r\n")],
        [OK[:9], OK[9:]],
        [OK.replace(b"X-A: b", b"Connection: close")],
    ):
        known: Memory = {}
        told(known, (Reader(GET), pieces))
        assert not known


def test_a_memory_has_an_end() -> None:
    """It begins anew when it is full."""
    known: Memory = {}
    for number in range(upstreams.MAX_KNOWN + 1):
        told(known, (Reader(GET), [OK.replace(b"X-A: b", b"X-A: %d" % number)]))
    assert len(known) == 1


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from([b"GET", b"HEAD", b"POST"]), st.sampled_from([OK, EMPTY, OK[:-5], *OTHERS])),
        max_size=6,
    )
)
def test_a_memory_makes_no_difference(pairs: list[tuple[bytes, bytes]]) -> None:
    """Whatever answers come one after the other."""

    def readers() -> list[tuple[Reader, list[bytes]]]:
        return [(Reader(heads.Request(method)), [answer]) for method, answer in pairs]

    assert told({}, *readers()) == told(Forgetful(), *readers())
