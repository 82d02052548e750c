"""Moves the output of a running exec from its pipes into its log, as it comes.

Each wake-up moves a little and gives the loop back, so one loud command cannot hold up the others; small pieces that
come in quick succession are left in the pipe for a moment, so a command that writes byte by byte costs 200 wake-ups a
second and not a hundred thousand; large pieces are moved in a thread, because a disk that has fallen behind makes its
writers wait. Nobody who reads the log can slow this down. It refuses to interpret what it moves.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable
from concurrent import futures
from typing import Any

from traforo.domain import clocks
from traforo.telemetry import logs
from traforo.worker.outputs import framelogs, frames, logmoves
from traforo.worker.runtimes import contract

ATTACH_SECONDS = 0.001
"""How long a new exec is left alone: most commands end before, and their output is then taken in one go."""
LOUD_BYTES = 256 * 1024
"""Output of one exec that is moved on the event loop; more than that goes through threads."""
SMALL_BYTES = 4096
"""A piece below this, soon after another one, makes the pump rest."""
SOON_SECONDS = 0.002
REST_SECONDS = 0.005
RETRY_SECONDS = 1.0
"""Pause after the disk refused. The output waits in the pipe meanwhile, and the command with it."""
_INT = struct.Struct("i")


class Pump:
    """Two pipes and a log. Belongs to one event loop; owns both descriptors until `close`."""

    def __init__(
        self,
        log: framelogs.FrameLog,
        stdout: int,
        stderr: int,
        *,
        clock: clocks.Clock,
        executor: futures.Executor,
        on_output: Callable[[], None],
    ) -> None:
        self._log = log
        found = {frames.Kind.STDOUT: stdout, frames.Kind.STDERR: stderr}
        self._fds = {kind: fd for kind, fd in found.items() if fd >= 0}  # a terminal has one
        self._clock = clock
        self._executor = executor
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._watched: set[frames.Kind] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._resting: set[frames.Kind] = set()
        self._moving: asyncio.Future[int] | None = None
        self.moving_ms: int | None = None
        """Time (Unix milliseconds) of output that is being moved and will be in the log; None when none is."""
        self._last = 0.0
        self._stopped = False
        self._after: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to move output, after a moment."""
        self._resting = set(self._fds)
        self._timer = self._loop.call_later(ATTACH_SECONDS, self._rested)

    def stop(self, then: Callable[[], None]) -> None:
        """Move no more, and call `then` when nothing is being moved any more: perhaps at once."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind in list(self._watched):
            self._unwatch(kind)
        if self._moving is None:
            then()
        else:
            self._after = then

    def drain(self) -> None:
        """Take what is in the pipes now, and no more: processes that were left behind may write for ever.

        Call it when stopped. What the disk refuses is counted as lost.
        """
        for kind, fd in self._fds.items():
            left = _pending(fd)
            while left > 0:
                try:
                    moved = self._move(kind, fd, left)
                except OSError as error:
                    self._refused(error)
                    self._log.lost = self._log.lost.plus(kind, left)
                    break
                if moved == 0:
                    break
                left -= moved

    def close(self) -> None:
        """Close both descriptors. Call it when stopped."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    # ---------------------------------------------------------------------------------------------- moving

    def _ready(self, kind: frames.Kind) -> None:
        fd = self._fds[kind]
        pending = _pending(fd)
        if pending == 0:
            if _hung_up(fd):
                self._unwatch(kind)
            return
        if self._log.held >= LOUD_BYTES and pending > SMALL_BYTES:
            self._move_in_thread(kind, fd)
            return
        now = self._clock.monotonic()
        soon = pending < SMALL_BYTES and now - self._last < SOON_SECONDS
        self._last = now
        try:
            moved = self._move(kind, fd, framelogs.MAX_FRAME_BYTES)
        except OSError as error:
            self._refused(error)
            self._rest(RETRY_SECONDS)
            return
        if soon:
            self._rest(REST_SECONDS)
        if moved:
            self._on_output()

    def _move(self, kind: frames.Kind, fd: int, limit: int) -> int:
        move = self._log.begin(kind, self._now_ms())
        try:
            moved = move.run(fd, limit)
        except OSError:
            self._log.lost = self._log.lost.plus(kind, move.wasted)
            raise
        self._log.commit(move, moved)
        return moved

    def _move_in_thread(self, kind: frames.Kind, fd: int) -> None:
        """Move a large piece without holding up the loop. It gets a frame of its own: a reader may see the last one."""
        try:
            move = self._log.begin(kind, self._now_ms(), grow=False)
        except OSError as error:
            self._refused(error)
            self._rest(RETRY_SECONDS)
            return
        for watched in list(self._watched):
            self._unwatch(watched)
            self._resting.add(watched)
        self.moving_ms = move.header.ms if move.header is not None else None
        self._moving = self._loop.run_in_executor(self._executor, move.run, fd, framelogs.MAX_FRAME_BYTES)
        self._moving.add_done_callback(lambda done: self._moved(kind, move, done))

    def _moved(self, kind: frames.Kind, move: logmoves.Move, done: asyncio.Future[int]) -> None:
        self._moving = self.moving_ms = None
        pause = 0.0
        if done.cancelled():
            pause = RETRY_SECONDS
        elif (error := done.exception()) is not None:
            self._log.lost = self._log.lost.plus(kind, move.wasted)
            self._refused(error)
            pause = RETRY_SECONDS
        else:
            self._log.commit(move, done.result())
            self._on_output()
        if self._after is not None:
            self._after()
        elif not self._stopped:
            self._wake_after(pause)

    # -------------------------------------------------------------------------------------------- watching

    def _watch(self, kind: frames.Kind) -> None:
        self._watched.add(kind)
        self._loop.add_reader(self._fds[kind], self._ready, kind)

    def _unwatch(self, kind: frames.Kind) -> None:
        self._watched.discard(kind)
        self._loop.remove_reader(self._fds[kind])

    def _rest(self, seconds: float) -> None:
        """Leave the output in the pipes for a while."""
        for kind in list(self._watched):
            self._unwatch(kind)
            self._resting.add(kind)
        self._wake_after(seconds)

    def _wake_after(self, seconds: float) -> None:
        if seconds == 0.0:
            self._rested()
        elif self._timer is None:
            self._timer = self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._timer = None
        resting, self._resting = self._resting, set()
        for kind in sorted(resting):
            self._watch(kind)

    def _refused(self, error: BaseException) -> None:
        logs.get(__name__).error("output_not_written", error=str(error), effect="the command waits")

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _pending(fd: int) -> int:
    """Return how many bytes a pipe holds."""
    answer: Any = fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size))
    return int(_INT.unpack(answer)[0])


def _hung_up(fd: int) -> bool:
    """Tell whether nobody can write into a pipe any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def close(running: contract.RunningExec) -> None:
    """Close the pipes of an exec that no pump was made for."""
    for fd in (running.stdout, running.stderr, running.stdin):
        if fd >= 0:
            os.close(fd)
    running.stdout = running.stderr = running.stdin = -1
