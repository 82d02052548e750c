"""Following the output of an exec: from a cursor to its end, at the pace of whoever reads.

A stream reads the log and nothing else, so no reader can hold up the command or another reader, and one that is too
slow misses what the log has dropped and is told how much. It remembers a cursor and no output: a thousand streams that
wait cost next to nothing. It refuses to encode: it gives out frames as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from traforo.worker.execs import outcomes, runs
from traforo.worker.outputs import framelogs, frames, logstores, logviews

BATCH_BYTES = 256 * 1024
"""Bytes of output that are read at once; at least a frame."""
INLINE_BYTES = 1024 * 1024
"""What is so near to the end of a log was written a moment ago, and is read without a thread."""
_BATCH_FRAMES = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """What there was to read."""

    view: logviews.View
    """What it was read from."""
    found: Sequence[frames.Frame]
    """In order."""
    first: int
    """Number of the first frame, or of what comes next."""
    next: int
    """Cursor from which to go on."""
    dropped: int = 0
    """Bytes of output missing before the first frame."""
    at_most: bool = False
    """No more than that are missing: how many the reader had seen is not known any more."""
    exit: bytes | None = None
    """JSON text of the end, behind the frames."""
    exit_ms: int = 0
    """Wall time of the end, milliseconds since the Unix epoch."""
    lost: int = 0
    """Bytes of output missing before the end, because the disk refused them."""


class Stream:
    """One reader of one exec. Belongs to one event loop and one task; `stop` may be called by others."""

    def __init__(self, run: runs.Exec, log: framelogs.FrameLog, store: logstores.LogStore, cursor: int) -> None:
        self._run = run
        self._log = log
        self._store = store
        self._waiting: asyncio.Future[None] | None = None
        self.cursor = cursor
        """Of the next frame."""
        self.ended = False
        """Everything was given out, the end included."""
        self.stopped = False
        """Nothing more will be given out."""

    @property
    def count(self) -> int:
        """Frames of output so far, and so the cursor of the end once there is one."""
        return self._log.count

    @property
    def caught_up(self) -> bool:
        """Whether nothing is there now that was not given out."""
        return self.ended or (self._run.outcome is None and self._log.count <= self.cursor)

    async def next(self, patience: float | None = None) -> Batch | None:
        """Return what comes next; None when it has `ended`, was `stopped`, or nothing came for `patience` seconds.

        Raises `WorkerUnavailable` when this worker stops.
        """
        loop = asyncio.get_running_loop()
        until = None if patience is None else loop.time() + patience
        while not self.stopped and not self.ended:
            if not self.caught_up:
                return await self._read()
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                return None
            await self._news(left)
        return None

    def stop(self) -> None:
        """Let `next` return None, now and later."""
        self.stopped = True
        if self._waiting is not None:
            _wake(self._waiting)

    async def _news(self, seconds: float | None) -> None:
        """Return when there may be something, or `seconds` have passed."""
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        self._run.watchers.append(waiting)
        timer = None if seconds is None else loop.call_later(seconds, _wake, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()
            with contextlib.suppress(ValueError):
                self._run.watchers.remove(waiting)

    async def _read(self) -> Batch | None:
        log, outcome = self._log, self._run.outcome
        view, start, found = await self._found()
        first = found[0].header.number if found else start
        dropped, at_most = log.position(first) - log.position(self.cursor), not log.locates(self.cursor)
        self.cursor = found[-1].header.number + 1 if found else start
        if outcome is None or self.cursor < view.count:
            return Batch(view, found, first, self.cursor, dropped, at_most)
        self.ended = True
        if self.cursor > view.count:  # the end was read before
            return None
        self.cursor += 1
        ms = int((self._run.completed_at or 0.0) * 1000)
        exit_ = outcomes.encode(outcome)
        return Batch(view, found, first, self.cursor, dropped, at_most, exit_, ms, log.lost.total)

    async def _found(self) -> tuple[logviews.View, int, Sequence[frames.Frame]]:
        """Return what can be read now: a view, the cursor from where it was read, and frames."""
        tried = -1
        while True:
            view, start = self._log.view(seal=True), max(self.cursor, self._log.oldest)
            if start >= view.count:
                return view, start, ()
            if start == tried:  # its file is gone although nobody dropped it
                return view, view.count, ()
            if found := await self._frames(view, start):
                return view, start, found
            tried = start  # it was dropped while it was read; there is a new oldest frame

    async def _frames(self, view: logviews.View, start: int) -> Sequence[frames.Frame]:
        if view.written.total - self._log.position(start) <= INLINE_BYTES:
            return view.read(start, _BATCH_FRAMES, BATCH_BYTES)
        return await self._store.read(
            self._log, lambda: view.read(start, _BATCH_FRAMES, BATCH_BYTES), inline_bytes=INLINE_BYTES
        )


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def gap(dropped: int, *, at_most: bool) -> dict[str, object]:
    """Return what a reader is told of missing output."""
    return {"dropped": dropped, "at_most": True} if at_most else {"dropped": dropped}
