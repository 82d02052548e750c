"""Everything that takes apart what a sandbox sends, as functions of bytes: each returns, or something is wrong.

The tests call them with what Hypothesis thinks of; `python -m tests.fuzz` looks for more, led by coverage. C has targets
of its own in `init/fuzz`.
"""

from __future__ import annotations

import contextlib
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from traforo.domain import errors
from traforo.wire import init_messages
from traforo.worker.files import owners, tarballs
from traforo.worker.interpreters import allowances, marks, messages
from traforo.worker.ports import answers, heads, upstreams
from traforo.worker.runtimes.container import channels, files, watches

NONCE = b"0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    """Input that it understands."""


def message(data: bytes) -> None:
    """Read a message of an init; what is read can be written again."""
    try:
        found = init_messages.decode(data)
    except init_messages.MalformedMessage:
        return
    fields = [init_messages.field(tag, content) for tag, content in found.fields]
    assert init_messages.message(found.kind, found.request_id, *fields) == data


def listing(data: bytes) -> None:
    """Read the records of a walk."""
    try:
        found = files.read_records(data, 100, "/base")
    except (channels.Closed, channels.Refused):
        return
    assert len(found.entries) <= 100
    assert all(entry.path.startswith("/base/") for entry in found.entries)


def changes(data: bytes) -> None:
    """Read the records of a watch, in two pieces and in one."""
    told = []
    for cut in (0, len(data) // 2):
        records = watches.Records("/base")
        try:
            told.append(records.feed(data[:cut]) + records.feed(data[cut:]))
        except (channels.Closed, channels.Refused):
            told.append([])
    assert all(change.path.startswith("/base") for change in told[0])


def interpreter(data: bytes) -> None:
    """Find answers in the output of an interpreter; what is none of them is output, and nothing gets lost."""
    shared = allowances.Allowance()
    parser = marks.Parser(NONCE, shared)
    cut = data[0] if data else 0
    found = parser.feed(data[:cut], more=True) + parser.feed(data[cut:], more=True) + parser.feed(b"", more=False)
    for item in found:
        if isinstance(item, marks.Message):
            messages.read(item)
    if b"\0" + NONCE not in data:
        assert b"".join(item for item in found if isinstance(item, bytes)) == data
    assert shared.unfinished <= len(data)
    parser.close()
    assert shared.unfinished == 0


def names(data: bytes) -> None:
    """Look up a user."""
    found = owners.find(data, "user")
    assert found is None or 0 <= found <= owners.MAX_ID


def header(data: bytes) -> None:
    """Read the header of an entry of an archive that a client sends into a sandbox, or a sandbox to a client."""
    block = _summed(data[:512].ljust(512, b"\0"))
    with contextlib.suppress(errors.InvalidRequest, errors.TooLarge):
        found = tarballs.parse(block, tarballs.said(b"x", data[512:]))
        assert isinstance(found, tarballs.Extension) or 0 <= found.size <= tarballs.MAX_SIZE


def _summed(block: bytes) -> bytes:
    """Return a header with the checksum that it should have."""
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


class _Transport:
    """The other end is nobody."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Reader:
    """Takes an answer, and holds it to what whoever passes it on relies on."""

    def __init__(self) -> None:
        self.request = heads.Request(b"GET")
        self.sent = True
        self.told: list[object] = []
        self.data = b""

    def interim(self, answer: answers.Answer) -> None:
        assert 100 <= answer.status < 200
        assert not self._heads()
        self.told.append(answer)

    def head(self, answer: answers.Answer) -> None:
        assert answer.status >= 200
        assert not self._heads()
        self.told.append(answer)

    def body(self, data: bytes) -> None:
        assert self._heads()
        assert not self._over()
        self.data += data

    def flush_answer(self) -> None: ...

    def complete(self, trailers: list[heads.Header]) -> None:
        assert self._heads()
        assert not self._over()
        assert len(trailers) <= upstreams.MAX_HEADERS
        self.told.append("complete")

    def switched(self, answer: answers.Answer, rest: bytes) -> None:
        assert answer.status == 101, rest
        assert not self._over()
        self.told.append("switched")

    def broken(self, error: errors.TraforoError, *, stale: bool) -> None:
        assert not self._over(), (error, stale)
        self.told.append("broken")

    def pause_feeding(self) -> None: ...

    def resume_feeding(self) -> None: ...

    def _heads(self) -> bool:
        return any(isinstance(one, answers.Answer) and one.status >= 200 for one in self.told)

    def _over(self) -> bool:
        return bool(self.told) and isinstance(self.told[-1], str)


def answer(data: bytes) -> None:
    """Read the answer of a server, in one piece and in two; what is told does not depend on it, nor on a memory."""
    whole = _answered([data])
    middle = len(data) // 2
    assert _answered([data[:middle], data[middle:]]) == whole


def _answered(pieces: list[bytes]) -> tuple[list[object], bytes]:
    known: dict[bytes, answers.Answer] = {}
    found = []
    for _ in range(2):
        upstream = upstreams.Upstream(memoryview(bytearray(upstreams.READ_BYTES)), _ignore, _ignore, known)
        upstream.connection_made(_Transport())  # type: ignore[arg-type]  # as much of one as is used
        reader = _Reader()
        upstream.serve(reader)
        for piece in filter(None, pieces):
            if upstream.usable:
                upstream.get_buffer(-1)[: len(piece)] = piece
                upstream.buffer_updated(len(piece))
        found.append((reader.told, reader.data))
    assert found[0] == found[1]
    return found[0]


def _ignore(upstream: upstreams.Upstream) -> None:
    del upstream


_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nrest",
)
_MARK = b"\0" + NONCE
_RUN = b"01ARZ3NDEKTSV4RRFFQ69G5FAV"
_RESULT = marks.join([_RUN, b"0", b"1", b"text/plain", b"42"])
TARGETS: Mapping[str, Target] = {
    "answer": Target(answer, _ANSWERS),
    "changes": Target(
        changes, (struct.pack("<IBBHII", 16, 0, 0, 0, 0, 0) + struct.pack("<IBBHII", 17, 1, 0, 0, 1, 0) + b"a",)
    ),
    "header": Target(header, (tarfile.TarInfo("name").tobuf(tarfile.PAX_FORMAT), b"a" * 512 + b"12 path=abc\n")),
    "interpreter": Target(
        interpreter,
        (
            b"\x05text",
            b"\x05out" + _MARK + b"R3%04d" % len(_RESULT) + _RESULT,
            b"\x05" + _MARK + b"D3%04d" % 33 + _RUN + b" 0 1 1" + b"x",
        ),
    ),
    "listing": Target(listing, (bytes(48), bytes(100))),
    "message": Target(
        message, (init_messages.message(1, 2, init_messages.number(3, 4), init_messages.string(5, "x")),)
    ),
    "names": Target(names, (b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",)),
}
"""By name."""
