"""The three pipes of an interpreter: requests go in, answers and the output of code come out.

Output is taken as it comes and handed on in its order; while nobody wants it, it is read all the same and dropped, so
that what code left behind never stops at a full pipe. It refuses to know what a run is. Its pipes belong to the runtime
as well, so a worker that dies loses none of what is in them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from traforo.worker.interpreters import allowances, marks
from traforo.worker.outputs import frames
from traforo.worker.runtimes import contract

PIECE_BYTES = 256 * 1024
"""Output of one interpreter that is handled before others have their turn."""
SMALL_BYTES = 4096
SMALL_READS = 16
"""So many small pieces in quick succession make it rest: a loop that prints would cost a wake-up a line."""
SOON_SECONDS = 0.002
REST_SECONDS = 0.005
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Requests that wait for room in the pipe; runs are bounded long before."""
_INT = struct.Struct("i")


class Channel:
    """The pipes of one interpreter. Belongs to one event loop; owns the descriptors until `close`."""

    def __init__(
        self,
        running: contract.RunningExec,
        nonce: bytes,
        allowance: allowances.Allowance,
        *,
        on_output: Callable[[frames.Kind, bytes], None],
        on_message: Callable[[marks.Message], None],
    ) -> None:
        self._stdin, self._stdout, self._stderr = running.stdin, running.stdout, running.stderr
        running.stdin = running.stdout = running.stderr = -1
        self._parser = marks.Parser(nonce, allowance)
        self._allowance = allowance
        self._on_output = on_output
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._small = 0
        self._last = 0.0
        self._closed = False

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._stdout, self._readable, self._stdout)
        self._loop.add_reader(self._stderr, self._readable, self._stderr)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write pieces, each in one go, now or when there is room. Without effect once nobody reads."""
        if self._closed:
            return
        idle = not self._waiting
        self._waiting.extend(pieces)
        if idle:
            self._writable()

    def drain_errors(self) -> None:
        """Hand on what is in the pipe of standard error now, and no more."""
        if not self._closed:
            self._read_errors(_pending(self._stderr))

    def drain(self) -> None:
        """Hand on what is in both pipes now; for an interpreter that has ended."""
        if self._closed:
            return
        self._read_errors(_pending(self._stderr))
        left = _pending(self._stdout)
        while left > 0 and not self._closed:
            left -= self._read_output(min(left, PIECE_BYTES)) or left

    def send_at_once(self, pieces: Iterable[bytes]) -> bool:
        """Write pieces to an interpreter that is quiet; False, and nothing is done, where they would have to wait."""
        wanted = list(pieces)
        busy = self._closed or self._waiting or any(map(_pending, (self._stdin, self._stdout, self._stderr)))
        if busy or len(wanted) > _slots(self._stdin):
            return False
        try:
            for piece in wanted:
                os.write(self._stdin, piece)
        except BlockingIOError:  # somebody inside has made the pipe smaller; it drops what is not whole
            return False
        except BrokenPipeError:  # it has ended, which is told elsewhere
            pass
        return True

    def give_back(self, running: contract.RunningExec) -> None:
        """Give the pipes of output back to where they came from: what comes now is for others. Closes the third."""
        running.stdout, running.stderr = self._stdout, self._stderr
        for fd in (self._stdout, self._stderr):
            self._loop.remove_reader(fd)
        self._stdout = self._stderr = -1
        self.close()

    def close(self) -> None:
        """Let go of the pipes. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._parser.close()
        if self._waiting:
            self._loop.remove_writer(self._stdin)
            self._waiting.clear()
        for fd in (self._stdout, self._stderr):
            if fd >= 0:
                self._loop.remove_reader(fd)
        for fd in (self._stdin, self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)

    # --------------------------------------------------------------------------------------------- reading

    def _readable(self, fd: int) -> None:
        pending = _pending(fd)
        if pending == 0:  # its other end is closed: nothing will come any more
            self._loop.remove_reader(fd)
            return
        now = time.monotonic()
        if rest := self._allowance.rest(now):  # others of the sandbox have spent it
            self._rest(fd, rest)
            return
        quick = pending < SMALL_BYTES and now - self._last < SOON_SECONDS
        self._small = self._small + 1 if quick else 0
        self._last = now
        if fd == self._stdout:
            self._read_output(min(pending, PIECE_BYTES))
        else:
            self._read_errors(min(pending, PIECE_BYTES))
        after = time.monotonic()
        rest = self._allowance.spend(after - now, after)
        if self._small >= SMALL_READS:
            rest = max(rest, REST_SECONDS)
        if rest:
            self._rest(fd, rest)

    def _rest(self, fd: int, seconds: float) -> None:
        if not self._closed and fd not in self._timers:
            self._loop.remove_reader(fd)
            self._timers[fd] = self._loop.call_later(seconds, self._rested, fd)

    def _rested(self, fd: int) -> None:
        del self._timers[fd]
        self._loop.add_reader(fd, self._readable, fd)

    def _read_output(self, count: int) -> int:
        data = _read(self._stdout, count)
        # What was in the pipe is whole pieces; what was left in it may be the rest of one.
        more = len(data) > 0 and _pending(self._stdout) > 0
        for item in self._parser.feed(data, more=more):
            if self._closed:
                break
            if isinstance(item, marks.Message):
                self._on_message(item)
            else:
                self._on_output(frames.Kind.STDOUT, item)
        return len(data)

    def _read_errors(self, count: int) -> None:
        while count > 0 and (data := _read(self._stderr, min(count, PIECE_BYTES))):
            count -= len(data)
            self._on_output(frames.Kind.STDERR, data)

    # --------------------------------------------------------------------------------------------- writing

    def _writable(self) -> None:
        watched = False
        while self._waiting:
            try:
                os.write(self._stdin, self._waiting[0])
            except BlockingIOError:
                self._loop.add_writer(self._stdin, self._writable)
                watched = True
                break
            except BrokenPipeError:  # it has ended, which is told elsewhere
                self._waiting.clear()
                break
            self._waiting.popleft()
        if not watched:
            self._loop.remove_writer(self._stdin)


def _pending(fd: int) -> int:
    answer: Any = fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size))
    return int(_INT.unpack(answer)[0])


def _slots(fd: int) -> int:
    """Return how many pieces surely fit into an empty pipe: each may take a page."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // resource.getpagesize()


def _read(fd: int, count: int) -> bytes:
    try:
        return os.read(fd, count)
    except BlockingIOError:
        return b""
