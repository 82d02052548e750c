"""The log of one exec's output on disk: written by moving pipes, bounded, and whole again after a crash.

It exists so that output which the worker took is never lost with the worker: bytes go from the pipe to the file inside
the kernel (`splice`), behind a header that already says whose they are. While the last frame is marked `OPEN` its
payload is everything up to the end of the file, so a process that dies in between leaves a log that reads right.
Files are made with the first output, not before. Numbers of frames are cursors; a frame that a reader has seen never
grows. It refuses to watch pipes, to know time and to run threads: `begin`, `Move.run` and `commit` are separate so
that the middle part, which alone may take long, can run in any thread.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from traforo.worker.outputs import budgets, frames, logmoves, logviews

MAX_FRAME_BYTES = 256 * 1024
"""Most bytes of payload in one frame."""
_LEAST_ROOM = 4096  # a segment with less room than this is full
_GROWTH_MS = ((10_000, 10), (100_000, 100))  # below so many frames the last one grows for so many milliseconds
_LAST_GROWTH_MS = 1000
_MAX_GONE_FRAMES = 100_000  # of dropped segments whose index is kept to tell a late reader how much it missed
_NOTHING = frames.Amounts()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one exec's output is kept."""

    max_bytes: int = 256 * 1024 * 1024
    """Bytes of all segments together; beyond it the oldest segment is dropped."""
    segment_bytes: int = 16 * 1024 * 1024
    """Bytes of one segment file."""
    max_frames: int = 1_000_000
    """Frames of all segments together, so that the index in memory stays small: a million are 4 MB."""

    @property
    def segment_frames(self) -> int:
        """Most frames in one segment."""
        return max(1, self.max_frames * self.segment_bytes // max(self.max_bytes, self.segment_bytes))


@dataclass(slots=True)
class _Last:
    """The newest frame, as far as it matters for what comes next."""

    header: frames.Header
    offset: int
    length: int
    growable: bool
    unclosed: bool
    """The file may still say `OPEN`, so the header has to be written once more before anything follows."""

    def closing(self) -> logmoves.Piece:
        head = self.header
        closed = frames.Header(head.kind, head.flags & ~frames.OPEN, self.length, head.ms, head.number, head.back)
        return logmoves.Piece(self.offset, closed.pack())


class FrameLog:
    """Frames of one exec, in segment files `<stem>.0`, `<stem>.1`, … Not for several threads at once."""

    __slots__ = (
        "_budget",
        "_fd",
        "_files",
        "_gone",
        "_last",
        "_limits",
        "_newest",
        "_segments",
        "_serial",
        "_stale",
        "_stem",
        "_written",
        "count",
        "exit",
        "exit_ms",
        "finished",
        "lost",
        "readers",
    )

    def __init__(
        self,
        stem: str,
        limits: Limits,
        place: logmoves.Place | None = None,
        budget: budgets.Budget | None = None,
    ) -> None:
        """Begin a log. `place` makes and drops its files; `budget` is what it shares with others."""
        self._stem = stem
        self._limits = limits
        self._files = place or logmoves.Plain()
        self._budget = budget or budgets.Budget(limits.max_bytes * 2)
        self._segments: list[logviews.Segment] = []
        self._serial = 0
        self._fd = -1
        self._last: _Last | None = None
        self._newest: dict[frames.Kind, int] = {}
        self._written = _NOTHING
        self._gone: list[logviews.Segment] = []
        self._stale = False
        self.count = 0
        """Frames of output so far, and so the cursor of the next one."""
        self.lost = _NOTHING
        """What never reached the log because the disk refused it."""
        self.readers: set[object] = set()
        """Who is reading it in a thread: its files must not be used again for something else."""
        self.exit: bytes | None = None
        """Payload of the exit frame, once it is written."""
        self.finished = False
        """Whether nothing will be added."""
        self.exit_ms = 0
        """Wall time of the exit frame, milliseconds since the Unix epoch."""

    @property
    def empty(self) -> bool:
        """Whether there is no file."""
        return not self._segments

    @property
    def written(self) -> frames.Amounts:
        """What was ever put into it."""
        return self._written

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(segment.size for segment in self._segments)

    @property
    def oldest(self) -> int:
        """Number of the oldest frame that is still held; `count` when there is none."""
        return self._segments[0].first if self._segments else self.count

    @property
    def dropped(self) -> frames.Amounts:
        """What is gone: the content of dropped segments, and what the disk refused."""
        before = self._segments[0].before if self._segments else self._written
        return before.plus_all(self.lost)

    @property
    def held(self) -> int:
        """Bytes of output that can be read."""
        return self._written.total - self._segments[0].before.total if self._segments else 0

    def locates(self, number: int) -> bool:
        """Whether it is known how many bytes came before frame `number`: not of what was dropped before a restart."""
        if number >= self.oldest:
            return True
        return any(segment.first <= number < segment.first + len(segment.offsets) for segment in self._gone)

    def position(self, number: int) -> int:
        """Return how many bytes of output came before frame `number`; 0 where that is not known any more."""
        for segment in (*self._segments, *self._gone):
            if segment.first <= number < segment.first + len(segment.offsets):
                return segment.before.total + segment.ahead(number)
        return self._written.total if number >= self.count else 0

    def begin(self, kind: frames.Kind, ms: int, *, grow: bool = True) -> logmoves.Move:
        """Decide where the next bytes of `kind` go, at wall time `ms` (milliseconds since the Unix epoch).

        With `grow` they may join the last frame, if that is of the same kind, young, and seen by nobody.
        Raises OSError when a file that was closed cannot be opened again.
        """
        if grow and (last := self._growing(kind, ms)) is not None:
            room = min(MAX_FRAME_BYTES - last.length, self._room())
            return logmoves.Move(self._fd, self._segments[-1].size, room, place=self._files)
        return self._place(kind, ms, frames.OPEN, 0)

    def commit(self, move: logmoves.Move, moved: int) -> None:
        """Make known what `move` did; `moved` is what its `run` returned."""
        if move.header is None:
            if self._last is not None:
                self._last.length += moved
                self._segments[-1].size += moved
                self._written = self._written.plus(self._last.header.kind, moved)
                self._budget.change(moved)
            return
        if self._last is not None:
            self._last.unclosed = False
        if move.made >= 0:
            self._enter(move)
        if moved or not move.header.flags & frames.OPEN:
            self._add(move.header, move.at, moved)

    def shed(self) -> None:
        """Drop everything if it is finished, else the oldest segment, or the only one when the next begins."""
        if self.finished:
            self._drop({segment.path for segment in self._segments})
            self._budget.remove(self)
        elif len(self._segments) > 1:
            self._drop({self._segments[0].path})
        else:
            self._stale = True

    def add(self, kind: frames.Kind, payload: bytes, ms: int) -> None:
        """Write a piece of a stream that is in memory. Raises OSError when the disk refuses: then some may be written.

        What was not is counted as lost.
        """
        left = memoryview(payload)
        try:
            while left:
                move = self.begin(kind, ms)
                piece = bytes(left[: move.room])
                move.write(piece)
                self.commit(move, len(piece))
                left = left[len(piece) :]
        except OSError:
            self.lost = self.lost.plus(kind, len(left))
            raise

    def append(self, kind: frames.Kind, payload: bytes, ms: int, *, flags: int = 0) -> None:
        """Write one frame whose payload is in memory. Raises OSError when the disk refuses."""
        move = self._place(kind, ms, flags, len(payload))
        move.write(payload)
        self.commit(move, len(payload))
        if kind is frames.Kind.EXIT:
            self.exit, self.exit_ms = payload, ms

    def finish(self, exit_frame: bytes | None, ms: int) -> None:
        """End both streams, write the exit frame if there is one, and close the file.

        A stream that stops inside a code point gets an empty `FINAL` frame. Raises OSError when the disk refuses;
        the file is closed then as well.
        """
        try:
            view = self.view()
            for kind in frames.STREAMS:
                if kind in self._newest and view.unfinished(self._newest[kind]):
                    self.append(kind, b"", ms, flags=frames.FINAL)
            if exit_frame is not None:
                self.append(frames.Kind.EXIT, exit_frame, ms)
        finally:
            self.finished = True
            self.close()

    def missing(self, told: frames.Amounts, count: int) -> None:
        """Count as lost what was once written and is in no file any more, as after a failure of power.

        `told`: what was written; `count`: frames there were, so that cursors keep their meaning.
        """
        written = self._written
        self.lost = frames.Amounts(
            max(0, told.stdout - written.stdout),
            max(0, told.stderr - written.stderr),
            max(0, told.results - written.results),
        )
        if self.empty:
            self.count = count

    def view(self, *, seal: bool = False) -> logviews.View:
        """Return what can be read now. With `seal` the last frame will not grow any more."""
        if seal and self._last is not None:
            self._last.growable = False
        end = self._segments[-1].size if self._segments else 0
        return logviews.View(tuple(self._segments), self.count, end, self._written)

    def close(self) -> None:
        """Close the file, after completing the last header. What comes later opens it again."""
        if self._fd < 0:
            return
        if self._last is not None and self._last.unclosed:
            with contextlib.suppress(OSError):  # a reader finds the end of an open frame by itself
                self._last.closing().write(self._fd)
                self._last.unclosed = False
        self._let_go()

    def detach(self) -> list[str]:
        """Forget everything and return the paths of its files, which are no longer its own."""
        self._let_go()
        self._budget.change(-self.size)
        self._budget.remove(self)
        paths = [segment.path for segment in self._segments]
        self._segments, self._gone, self._last = [], [], None
        return paths

    # ------------------------------------------------------------------------------------------- deciding

    def _growing(self, kind: frames.Kind, ms: int) -> _Last | None:
        last = self._last
        if last is None or not last.growable or last.header.kind is not kind or self._fd < 0:
            return None
        window = next((limit for below, limit in _GROWTH_MS if self.count < below), _LAST_GROWTH_MS)
        if not 0 <= ms - last.header.ms <= window:
            return None
        full = last.length >= MAX_FRAME_BYTES or self._stale or self._room() < _LEAST_ROOM
        return None if full else last

    def _room(self) -> int:
        return self._limits.segment_bytes - self._segments[-1].size

    def _place(self, kind: frames.Kind, ms: int, flags: int, length: int) -> logmoves.Move:
        """Give a new frame its offset, in a new segment if the current one is full."""
        last = self._last
        if last is not None:
            last.growable = False
        back = self.count - self._newest[kind] if kind in self._newest else 0
        header = frames.Header(kind, flags, length, ms, self.count, back)
        if self._segments and self._fd < 0:
            self._fd = os.open(self._segments[-1].path, os.O_RDWR | os.O_CLOEXEC)
        move = logmoves.Move(self._fd, 0, MAX_FRAME_BYTES, header, place=self._files)
        if last is not None and last.unclosed:
            move.closing = last.closing()
        if self._full(length):
            move.path = f"{self._stem}.{self._serial}"
            move.opening = logmoves.Piece(0, frames.SegmentHeader(self.count, self._written).pack() + header.pack())
            move.at = frames.SEGMENT_HEADER_BYTES + frames.HEADER_BYTES
            move.doomed = [segment.path for segment in self._doomed()]
        else:
            move.opening = logmoves.Piece(self._segments[-1].size, header.pack())
            move.at = self._segments[-1].size + frames.HEADER_BYTES
        move.room = min(MAX_FRAME_BYTES, max(self._limits.segment_bytes - move.at, 1))
        return move

    def _full(self, length: int) -> bool:
        if not self._segments or len(self._segments[-1].offsets) >= self._limits.segment_frames:
            return True
        return self._stale or self._room() < max(_LEAST_ROOM, frames.HEADER_BYTES + length)

    def _doomed(self) -> list[logviews.Segment]:
        """Return the oldest segments, which must go when one more begins."""
        size = self._limits.segment_bytes + sum(segment.size for segment in self._segments)
        held = self._limits.segment_frames + self.count - self.oldest
        found = []
        for segment in self._segments:
            if size <= self._limits.max_bytes and held <= self._limits.max_frames and not self._stale:
                break
            found.append(segment)
            size -= segment.size
            held -= len(segment.offsets)
        return found

    # ------------------------------------------------------------------------------------------ committing

    def _enter(self, move: logmoves.Move) -> None:
        """Take a new segment into use and let go of the oldest."""
        self._let_go()
        self._fd = move.made
        self._serial += 1
        self._drop(set(move.doomed))
        self._stale = False
        if not self._segments:
            self._budget.add(self)
        self._segments.append(
            logviews.Segment(move.path, self.count, self._written, array("I"), frames.SEGMENT_HEADER_BYTES)
        )
        self._budget.change(frames.SEGMENT_HEADER_BYTES)

    def _drop(self, paths: set[str]) -> None:
        """Leave out the oldest segments, and remember where their frames were for a while."""
        dropped = [segment for segment in self._segments if segment.path in paths]
        if not dropped:
            return
        self._segments = [segment for segment in self._segments if segment.path not in paths]
        self._files.discard([segment.path for segment in dropped])
        self._gone += dropped
        known = sum(len(segment.offsets) for segment in self._gone)
        while known > _MAX_GONE_FRAMES:
            known -= len(self._gone.pop(0).offsets)
        self._budget.change(-sum(segment.size for segment in dropped))

    def _add(self, header: frames.Header, at: int, moved: int) -> None:
        segment = self._segments[-1]
        grown = at + moved - segment.size
        segment.size = at + moved
        if header.kind is frames.Kind.EXIT:
            self._last = None
            self._budget.change(grown)
            return
        segment.offsets.append(at - frames.HEADER_BYTES)
        opened = bool(header.flags & frames.OPEN)
        self._last = _Last(header, at - frames.HEADER_BYTES, moved, growable=opened, unclosed=opened)
        self._newest[header.kind] = self.count
        self._written = self._written.plus(header.kind, moved)
        self.count += 1
        self._budget.change(grown)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------------------------------------ recovering

    @classmethod
    def recover(
        cls,
        stem: str,
        limits: Limits,
        serials: Iterable[int],
        place: logmoves.Place | None = None,
        budget: budgets.Budget | None = None,
    ) -> FrameLog:
        """Rebuild a log from its files after a restart; `serials` are the numbers behind the stem.

        Reads every header, so it belongs into a thread. A torn end is cut off. It is counted in its budget by
        `count_in`, since that belongs to another thread. Raises OSError.
        """
        log = cls(stem, limits, place, budget)
        for serial in sorted(serials):
            log._serial = serial + 1
            found = logviews.scan(f"{stem}.{serial}")
            if found is not None and (log.empty or found.segment.first == log.count):
                log._take_over(found)
        return log

    def count_in(self, *, finished: bool) -> None:
        """Count a recovered log in its budget; a `finished` one will not be added to."""
        self.finished = finished
        if self._segments:
            self._budget.add(self)
            self._budget.change(self.size)

    def _take_over(self, found: logviews.Scan) -> None:
        segment = found.segment
        self._segments.append(segment)
        self._written = found.after
        self.count = segment.first + len(segment.offsets)
        self._newest.update(found.newest)
        if found.exit is not None:
            self.exit, self.exit_ms, self._last = found.exit, found.exit_ms, None
        elif found.last is not None:
            unclosed = bool(found.last.flags & frames.OPEN) or found.last.length != found.last_length
            self._last = _Last(found.last, segment.offsets[-1], found.last_length, growable=False, unclosed=unclosed)
