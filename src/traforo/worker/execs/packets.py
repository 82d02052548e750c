"""The binary messages between an exec and a client that is attached to it. Pure.

Down: a byte that says what it is, the cursor of the next frame as eight bytes, the payload. Up: a byte that says what
it is, and what belongs to it. What cannot be read is refused, never guessed at. Numbers are big-endian.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from traforo.domain import errors, specs
from traforo.worker.execs import streams
from traforo.worker.outputs import frames

_DOWN = struct.Struct(">BQ")
_RESIZE = struct.Struct(">HH")
_SIGNAL = struct.Struct(">BB")
_MAX_SIGNAL = 64
MAX_SIZE = 4096
"""Most rows and columns of a terminal."""


class Down(enum.IntEnum):
    """What a message to the client carries."""

    STDOUT = 1
    STDERR = 2
    EXIT = 3
    """JSON text: how it ended. The last message."""
    GAP = 4
    """JSON text: `dropped`, the bytes of output that are missing here; with `at_most` where no more is known."""
    RESULT = 5
    """JSON text."""


class Up(enum.IntEnum):
    """What a message from the client carries."""

    STDIN = 16
    """Bytes."""
    END = 17
    """The end of stdin."""
    RESIZE = 18
    """Rows and columns, two bytes each."""
    SIGNAL = 19
    """Number and whether the whole tree is meant, a byte each."""


@dataclass(frozen=True, slots=True)
class Stdin:
    """Input."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The end of the input."""


@dataclass(frozen=True, slots=True)
class Resize:
    """A new size of the terminal."""

    size: specs.Terminal


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal to send."""

    number: int
    tree: bool


_DOWN_KINDS = {
    frames.Kind.STDOUT: Down.STDOUT,
    frames.Kind.STDERR: Down.STDERR,
    frames.Kind.RESULT: Down.RESULT,
}


def messages(batch: streams.Batch) -> Iterator[bytes]:
    """Yield what a client is told of a batch. A stream's last frame may be empty; that is nothing to tell."""
    if batch.dropped:
        yield _gap(batch.first, streams.gap(batch.dropped, at_most=batch.at_most))
    for frame in batch.found:
        if frame.payload:
            yield _DOWN.pack(_DOWN_KINDS[frame.header.kind], frame.header.number + 1) + frame.payload
    if batch.exit is not None:
        if batch.lost:
            yield _gap(batch.next - 1, streams.gap(batch.lost, at_most=False))
        yield _DOWN.pack(Down.EXIT, batch.next) + batch.exit


def read(message: bytes | str) -> Stdin | End | Resize | Signal:
    """Read a message of a client. Raises `InvalidRequest`."""
    if isinstance(message, str) or not message:
        raise _malformed("it is text, or empty")
    kind, rest = message[0], message[1:]
    match kind:
        case Up.STDIN:
            return Stdin(rest)
        case Up.END if not rest:
            return End()
        case Up.RESIZE if len(rest) == _RESIZE.size:
            return Resize(size(*_RESIZE.unpack(rest)))
        case Up.SIGNAL if len(rest) == _SIGNAL.size:
            number, tree = _SIGNAL.unpack(rest)
            if not 1 <= number <= _MAX_SIGNAL or tree > 1:
                raise _malformed(f"signal {number} with {tree} for its tree")
            return Signal(number, bool(tree))
    raise _malformed(f"kind {kind} with {len(rest)} bytes")


def size(rows: int, columns: int) -> specs.Terminal:
    """Return the size of a terminal. Raises `InvalidRequest`."""
    if not (1 <= rows <= MAX_SIZE and 1 <= columns <= MAX_SIZE):
        raise errors.InvalidRequest(f"cannot use a terminal that is not 1 to {MAX_SIZE} rows and columns", field="rows")
    return specs.Terminal(rows, columns)


def _gap(cursor: int, told: dict[str, object]) -> bytes:
    return _DOWN.pack(Down.GAP, cursor) + msgspec.json.encode(told)


def _malformed(what: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"cannot read a message: {what}")
