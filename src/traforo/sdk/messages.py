"""Messages of an exec's streams: what a WebSocket carries in each direction, and the lines of a streamed answer.

Pure code. Both forms become a `Piece`, so that whoever reads output does not know over which way it came. It refuses to
guess: what is malformed is `BadAnswer`; kinds that this version does not know are passed over.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from traforo.sdk import answers, errors, results

STDIN_BYTES = 256 * 1024
"""Bytes of input in one message at most."""

_HEAD = struct.Struct(">BQ")
_OUTPUT = {1: "stdout", 2: "stderr", 3: "exit", 5: "result"}
_GAP = 4
_STDIN, _END, _RESIZE, _SIGNAL = 16, 17, 18, 19


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of reading: a frame, or the news that frames are gone."""

    frame: results.Frame | None
    next_cursor: int | None
    """Where to read on; None leaves it where it was."""
    dropped: int = 0
    """Bytes of output that were gone from the log before they were read."""


@dataclass(slots=True)
class Position:
    """How far somebody has read: the one place that decides what is new, so that nothing comes twice."""

    next_cursor: int = 0
    dropped: int = 0
    ended: bool = False

    def take(self, piece: Piece) -> results.Frame | None:
        """Move on by a piece and return its frame, if it is one that was not seen before."""
        self.dropped += piece.dropped
        if piece.next_cursor is not None and piece.next_cursor <= self.next_cursor:
            return None
        self.next_cursor = self.next_cursor if piece.next_cursor is None else piece.next_cursor
        if piece.frame is not None and piece.frame.type == "exit":
            self.ended = True
        return piece.frame


def piece(message: bytes | str) -> Piece:
    """Read a message of the server. Raises `BadAnswer`."""
    if isinstance(message, str) or len(message) < _HEAD.size:
        raise errors.BadAnswer("cannot read the stream: not a message of an exec")
    kind, next_cursor = _HEAD.unpack_from(message)
    payload = message[_HEAD.size :]
    if kind in _OUTPUT:
        return Piece(results.Frame(next_cursor - 1, _OUTPUT[kind], payload, None), next_cursor)
    return Piece(None, next_cursor if kind == _GAP else None, _dropped(payload) if kind == _GAP else 0)


def _dropped(payload: bytes) -> int:
    return int(answers.field(answers.document(payload), "dropped", int))


def line(text: bytes) -> Piece:
    """Read a line of a streamed answer that was asked for as base64. Raises `BadAnswer`."""
    body = answers.document(text)
    kind = answers.field(body, "type", str)
    if kind == "gap":
        cursor = body.get("cursor")
        return Piece(None, cursor if isinstance(cursor, int) else None, int(answers.field(body, "dropped", int)))
    if kind not in _OUTPUT.values():
        return Piece(None, None)
    cursor = answers.field(body, "cursor", int)
    data = answers.unpacked(kind, str(body.get("data") or ""))
    return Piece(results.Frame(cursor, kind, data, answers.moment(body.get("ts"))), cursor + 1)


def stdin(data: bytes) -> bytes:
    """Return the message that carries input."""
    return bytes([_STDIN]) + data


def end_of_stdin() -> bytes:
    """Return the message that ends the input."""
    return bytes([_END])


def resize(rows: int, columns: int) -> bytes:
    """Return the message that sets the size of the terminal."""
    return struct.pack(">BHH", _RESIZE, *(max(1, min(4096, size)) for size in (rows, columns)))


def signal(number: int, *, tree: bool) -> bytes:
    """Return the message that sends a signal."""
    return struct.pack(">BBB", _SIGNAL, number, tree)


def end_of(frame: results.Frame) -> dict[str, Any]:
    """Return what an `exit` frame tells, as far as it can be read."""
    try:
        value = json.loads(frame.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
