"""The stdin of a running command: one pipe, written in order by whoever wants to, and never faster than it is read.

What was written is in the pipe: a writer returns when the command can read all of it, and is told how much was taken
where the rest was not. It refuses to buffer: a writer waits while the pipe is full, and so does whoever feeds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

from traforo.domain import errors
from traforo.worker.runtimes import contract

_PIECE = 64 * 1024


class Input:
    """The writing end of a pipe. Belongs to one event loop; owns the descriptor."""

    __slots__ = ("_fd", "_lock", "_loop", "_running", "_waiting", "told")

    def __init__(self, running: contract.RunningExec) -> None:
        """Take over the stdin of an exec, which has one."""
        self._running = running
        self._fd, running.stdin = running.stdin, -1
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self.told = False
        """Its end was told, or is about to be."""

    @property
    def open(self) -> bool:
        """Whether it can be written."""
        return self._fd >= 0 and not self.told

    async def write(self, data: bytes) -> None:
        """Return when all of it is in the pipe. Writes of several callers do not mix.

        Raises `Conflict`, with `written` bytes that were taken, when stdin is not open or the command takes no more.
        """
        async with self._lock:
            await self._write(data)

    def write_now(self, data: bytes) -> int:
        """Make the pipe large enough for `data` if that may be, write what fits, and return how much did."""
        if len(data) > _PIECE:
            with contextlib.suppress(OSError):  # then it is as large as it was
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, len(data))
        return self._try(memoryview(data))

    async def finish(self) -> None:
        """Tell the end of the input, behind everything that is being written. Idempotent."""
        async with self._lock:
            if self._fd >= 0:
                self.told = True
                self.close()
                with contextlib.suppress(errors.NotFound, errors.Lost):  # it has ended
                    await self._running.close_stdin()

    def close(self) -> None:
        """Let go of the descriptor, which ends nothing; a writer that waits gets its `Conflict`. Idempotent."""
        if self._fd < 0:
            return
        self._unwatch()
        os.close(self._fd)
        self._fd = -1

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            if self._fd < 0:
                raise _refused(done)
            try:
                count = self._try(view[done : done + _PIECE])
            except BrokenPipeError as error:
                raise _refused(done) from error
            done += count
            if count == 0:
                await self._room()

    def _try(self, data: memoryview) -> int:
        """Write what fits. Raises BrokenPipeError when nobody can read it any more."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    async def _room(self) -> None:
        """Return when something fits, or when it is closed."""
        self._waiting = self._loop.create_future()
        self._loop.add_writer(self._fd, self._unwatch)
        try:
            await self._waiting
        finally:
            self._unwatch()

    def _unwatch(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        self._loop.remove_writer(self._fd)
        if not waiting.done():
            waiting.set_result(None)


def _refused(written: int) -> errors.Conflict:
    why = "its end was told, or the command reads no more"
    return errors.Conflict(f"cannot write to stdin: {why}", kind="stdin", written=written)
