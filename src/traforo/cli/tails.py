"""The last lines of output, kept while all of it passes by."""

from __future__ import annotations

import collections
import sys
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from traforo.cli import streams

if TYPE_CHECKING:
    from traforo.sdk import Exec

MAX_BYTES = 64 * 1024 * 1024
"""Most bytes that are kept: a line may be as long as a log."""


class Tail:
    """The last lines of two streams, as a terminal would show them: in the order in which they were written."""

    def __init__(self, lines: int) -> None:
        self._wanted = lines
        self._pieces: collections.deque[tuple[str, bytes]] = collections.deque()
        self._newlines = self._bytes = 0

    def add(self, stream: str, data: bytes) -> None:
        """Take a piece of `stdout` or `stderr`, and forget what is no longer among the last lines."""
        if not data:
            return
        self._pieces.append((stream, data))
        self._newlines += data.count(b"\n")
        self._bytes += len(data)
        while self._pieces:
            first = self._pieces[0][1]
            newlines = first.count(b"\n")
            if self._newlines - newlines <= self._wanted and self._bytes <= MAX_BYTES:
                return
            self._pieces.popleft()
            self._newlines -= newlines
            self._bytes -= len(first)

    def pieces(self) -> list[tuple[str, bytes]]:
        """Return the last lines; one without an end counts."""
        left = self._wanted + bool(self._pieces and self._pieces[-1][1].endswith(b"\n"))
        found: list[tuple[str, bytes]] = []
        for stream, data in reversed(self._pieces):
            before, *lines = data.rsplit(b"\n", left)
            if len(lines) == left:
                found.append((stream, data[len(before) + 1 :]))
                break
            found.append((stream, data))
            left -= len(lines)
        return found[::-1]

    def write(self) -> None:
        """Write the last lines to the streams of this program. Raises OSError."""
        for stream, data in self.pieces():
            streams.write_whole((sys.stdout if stream == "stdout" else sys.stderr).fileno(), data)


def written(execution: Exec, lines: int, wanted: AbstractSet[str] = frozenset({"stdout", "stderr"})) -> int:
    """Write the last lines of what a command has written so far; return the cursor from which it goes on."""
    tail, cursor = Tail(lines), 0
    for frame in execution.written():
        if frame.type == "exit":  # left to whoever goes on
            break
        cursor = frame.cursor + 1
        if frame.type in wanted:
            tail.add(frame.type, frame.data)
    tail.write()
    return cursor
