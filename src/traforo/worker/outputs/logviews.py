"""Reading the segment files of a frame log: by cursor while it is written, and from nothing after a restart.

A `View` is a fixed piece of a log, so that it can be read in any thread while the log grows or drops its oldest
segment; what was dropped meanwhile is passed over. It refuses to write: logs are written by `framelogs`.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from traforo.worker.outputs import frames

_CARRY_BYTES = 3
_SMALL_BYTES = 4096  # a frame up to this size is read as a whole where only its ends are wanted


@dataclass(slots=True, eq=False)
class Segment:
    """One file of a log. The writer appends to `offsets` and raises `size`; nothing else changes."""

    path: str
    first: int
    """Number of its first frame."""
    before: frames.Amounts
    """What all earlier segments held."""
    offsets: array[int]
    """Where each frame's header stands."""
    size: int
    """Where the next header goes."""

    def ahead(self, number: int) -> int:
        """Return the bytes of payload in this segment before frame `number`, which it has."""
        position = number - self.first
        return self.offsets[position] - frames.SEGMENT_HEADER_BYTES - position * frames.HEADER_BYTES


@dataclass(frozen=True, slots=True)
class View:
    """What a log held at one moment."""

    segments: tuple[Segment, ...]
    count: int
    """Frames that existed; the cursor of the one that did not."""
    end: int
    """Size of the last segment."""
    written: frames.Amounts
    """What all segments held, those already dropped included."""

    @property
    def held(self) -> frames.Amounts:
        """What can be read."""
        if not self.segments:
            return frames.Amounts()
        before = self.segments[0].before
        written = self.written
        return frames.Amounts(
            written.stdout - before.stdout, written.stderr - before.stderr, written.results - before.results
        )

    def read(self, cursor: int, limit: int, max_bytes: int) -> list[frames.Frame]:
        """Return at most `limit` frames from `cursor` on, or from the oldest there is.

        They hold at most `max_bytes` together, headers included, but at least one frame where there is one.
        """
        found: list[frames.Frame] = []
        for index, segment in enumerate(self.segments):
            start = max(cursor - segment.first, 0)
            there = self._frames(index) - start
            if there <= 0:
                continue
            piece = self._read_run(index, start, limit - len(found), max_bytes, first=not found)
            found += piece
            max_bytes -= sum(frames.HEADER_BYTES + len(frame.payload) for frame in piece)
            if found and (len(piece) < there or len(found) >= limit):
                break
        return found

    def header(self, number: int) -> frames.Header | None:
        """Return the header of one frame; None when it was dropped."""
        return self._tail(number)[0]

    def carry(self, frame: frames.Frame) -> bytes:
        """Return the unfinished code point that the stream of `frame` carries into it."""
        return self._unfinished(frame.header.number, frame.header.back, b"")

    def unfinished(self, number: int) -> bytes:
        """Return the unfinished code point after frame `number`, which is the last of its stream."""
        return self._unfinished(number, 0, None)

    def _unfinished(self, number: int, back: int, window: bytes | None) -> bytes:
        if window is None:
            header, window = self._tail(number)
            back = header.back if header is not None else 0
        while back and len(window) < _CARRY_BYTES:
            number -= back
            header, end = self._tail(number)
            window = end + window
            back = header.back if header is not None else 0
        return frames.tail(window)

    def _frames(self, index: int) -> int:
        segment = self.segments[index]
        return self.count - segment.first if index == len(self.segments) - 1 else len(segment.offsets)

    def _end(self, index: int, position: int) -> int:
        """Return where frame `position` of a segment ends."""
        segment = self.segments[index]
        if position + 1 < self._frames(index):
            return segment.offsets[position + 1]
        return self.end if index == len(self.segments) - 1 else segment.size

    def _read_run(self, index: int, start: int, limit: int, room: int, *, first: bool) -> list[frames.Frame]:
        """Read neighbours from one segment; if they are the `first`, one even where there is no room for it."""
        segment = self.segments[index]
        base = segment.offsets[start]
        stop = min(start + limit, self._frames(index))
        if self._end(index, stop - 1) - base > room:
            stop = bisect_right(segment.offsets, base + room, start, stop) - 1
            if first:
                stop = max(stop, start + 1)
        if stop <= start:
            return []
        data = _read(segment.path, base, self._end(index, stop - 1) - base)
        return frames.split(data)[: stop - start]

    def _tail(self, number: int) -> tuple[frames.Header | None, bytes]:
        """Return the header and the last bytes of one frame; nothing when it was dropped."""
        for index, segment in enumerate(self.segments):
            position = number - segment.first
            if 0 <= position < self._frames(index):
                start, end = segment.offsets[position], self._end(index, position)
                data = _read(segment.path, start, min(end - start, _SMALL_BYTES))
                if end - start > _SMALL_BYTES:
                    return frames.unpack(data), _read(segment.path, end - _CARRY_BYTES, _CARRY_BYTES)
                return frames.unpack(data), data[frames.HEADER_BYTES :][-_CARRY_BYTES:]
        return None, b""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment file holds, found by walking its headers."""

    segment: Segment
    after: frames.Amounts
    """What it and all earlier segments held."""
    last: frames.Header | None
    """Header of its last frame of output."""
    last_length: int
    """Bytes of payload really there of that frame."""
    exit: bytes | None
    """Payload of the exit frame, if that is in it."""
    exit_ms: int
    """Wall time of the exit frame, milliseconds since the Unix epoch."""
    newest: dict[frames.Kind, int] = field(default_factory=dict)
    """Number of the last frame of each stream."""


def scan(path: str) -> Scan | None:
    """Walk a segment after a restart and cut off a torn end; None for what has no whole segment header."""
    with Path(path).open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        head = frames.unpack_segment(file.read(frames.SEGMENT_HEADER_BYTES))
        if head is None:
            return None
        found = _walk(file, path, head, size)
        if found.segment.size < size:
            file.truncate(found.segment.size)
        return found


def _walk(file: BinaryIO, path: str, head: frames.SegmentHeader, size: int) -> Scan:
    offsets = array("I")
    newest: dict[frames.Kind, int] = {}
    at, last_length, exit_ms = frames.SEGMENT_HEADER_BYTES, 0, 0
    after = head.before
    last: frames.Header | None = None
    ended: bytes | None = None
    while header := frames.unpack(file.read(frames.HEADER_BYTES)):
        start = at + frames.HEADER_BYTES
        length = size - start if header.flags & frames.OPEN else min(header.length, size - start)
        if header.kind is frames.Kind.EXIT:
            if length == header.length:
                ended, exit_ms, at = file.read(length), header.ms, start + length
            break
        if header.number != head.first + len(offsets) or (header.flags & frames.OPEN and length == 0):
            break
        offsets.append(at)
        newest[header.kind] = header.number
        at, last, last_length = start + length, header, length
        after = after.plus(header.kind, length)
        file.seek(length, os.SEEK_CUR)
    segment = Segment(path, head.first, head.before, offsets, at)
    return Scan(segment, after, last, last_length, ended, exit_ms, newest)


def _read(path: str, offset: int, length: int) -> bytes:
    """Read a piece of a segment; empty when the segment was dropped."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)
