"""Answers of an interpreter among the output of the code it runs: found, put together, and never believed.

Pure. An answer comes in pieces, each behind a mark: a NUL and 32 random digits that only the interpreter was told. Code
in the interpreter can find them out and lie with them, to itself: whatever comes is bounded, and what is malformed is
output like any other. A piece is written in one go (it is smaller than PIPE_BUF), so it is whole wherever a pipe was
read empty; the same holds for requests, whose pieces are made here as well.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from traforo.worker.interpreters import allowances

NONCE_DIGITS = 32
MAX_PIECE_BYTES = 4096
"""PIPE_BUF: a write up to this size is whole or not there."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest answer; a larger one is dropped, and so is one for which there is no room beside others."""
_FIRST, _LAST = 1, 2
_HEAD = re.compile(rb"([A-Z])([0-3])([0-9]{4})")
_HEAD_BYTES = 6
_ROOM = MAX_PIECE_BYTES - _HEAD_BYTES


@dataclass(frozen=True, slots=True)
class Message:
    """One answer."""

    kind: str
    """One letter."""
    payload: bytes


def nonce() -> bytes:
    """Return digits that nobody guesses."""
    return secrets.token_hex(NONCE_DIGITS // 2).encode()


class Parser:
    """Takes apart what comes through the standard output of an interpreter."""

    def __init__(self, digits: bytes, allowance: allowances.Allowance | None = None) -> None:
        self._mark = b"\0" + digits
        self._allowance = allowance or allowances.Allowance()
        self._held = b""
        self._kind = b""
        self._whole = bytearray()
        """What has come of an answer: bytes, since pieces may be as small and as many as anybody likes."""
        self._fits = True

    def feed(self, data: bytes, *, more: bool) -> list[bytes | Message]:
        """Return output and answers in their order. `more`: the pipe may hold more, so the end may be cut off."""
        data = self._held + data
        self._held = b""
        found: list[bytes | Message] = []
        at = search = 0
        while (start := data.find(self._mark, search)) >= 0:
            body = start + len(self._mark) + _HEAD_BYTES
            head = _HEAD.match(data, body - _HEAD_BYTES)
            cut = len(data) < body or (head is not None and len(data) < body + int(head[3]))
            if cut and more:
                break
            if cut or head is None:
                search = start + 1
                continue
            if start > at:
                found.append(data[at:start])
            at = search = body + int(head[3])
            message = self._take(head[1], int(head[2]), data[body:at])
            if message is not None:
                found.append(message)
        end = self._end(data, at, start) if more else len(data)
        self._held = data[end:]
        if end > at:
            found.append(data[at:end])
        return found

    def _end(self, data: bytes, at: int, start: int) -> int:
        """Return where the output ends that is surely output. `start`: of a piece that is cut off, or -1."""
        if start >= 0:
            return start
        last = data.rfind(b"\0", max(at, len(data) - len(self._mark) + 1))
        return last if last >= 0 and self._mark.startswith(data[last:]) else len(data)

    def close(self) -> None:
        """Let go of what has come of an answer that will not be finished."""
        self._drop()

    def _take(self, kind: bytes, place: int, payload: bytes) -> Message | None:
        if place & _FIRST:
            self._drop()
            self._kind, self._fits = kind, True
        elif kind != self._kind:
            return None
        fits = self._fits and len(self._whole) + len(payload) <= MAX_MESSAGE_BYTES
        self._fits = fits and self._allowance.hold(len(payload))
        if self._fits:
            self._whole += payload
        else:
            self._drop()
        if not place & _LAST:
            return None
        found = Message(kind.decode(), bytes(self._whole)) if self._fits else None
        self._drop()
        self._kind = b""
        return found

    def _drop(self) -> None:
        self._allowance.unfinished -= len(self._whole)
        self._whole = bytearray()


def request(kind: str, fields: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a request, each to be written in one go."""
    payload = join(fields)
    place = _FIRST
    for at in range(0, max(len(payload), 1), _ROOM):
        part = payload[at : at + _ROOM]
        if at + _ROOM >= len(payload):
            place |= _LAST
        yield b"%b%d%04d%b" % (kind.encode(), place, len(part), part)
        place = 0


def join(fields: Iterable[bytes]) -> bytes:
    """Return fields, each behind its length, as one payload."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def split(payload: bytes) -> Sequence[bytes] | None:
    """Return the fields of a payload; None where it is none."""
    fields: list[bytes] = []
    at = 0
    while at < len(payload):
        end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
        if end > len(payload) or at + 4 > len(payload):
            return None
        fields.append(payload[at + 4 : end])
        at = end
    return fields
