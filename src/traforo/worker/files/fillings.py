"""Content on its way into an open file of a sandbox: a little is written here, what is more by the sandbox.

Who writes to a file system in memory pays for it: what the worker writes would count as the worker's, beyond every
limit of the sandbox.
"""

from __future__ import annotations

import asyncio
import os

from traforo.api import threads
from traforo.domain import errors
from traforo.worker.files import descriptors
from traforo.worker.runtimes import contract


class Filling:
    """One file that is written. End it with `finish` or `abandon`."""

    def __init__(self, inside: contract.Files, fd: int, path: str, user: str) -> None:
        self._inside = inside
        self._fd = fd
        self._path = path
        self._user = user
        self._pipe = -1
        self._task: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write all of `data`. Raises `DiskFull`, `Conflict`, and what the runtime raises for a path."""
        if self._task is None and self._inside.direct(len(data)):
            with descriptors.translated(self._path):
                if len(data) <= descriptors.INLINE_BYTES:
                    descriptors.write(self._fd, data)
                else:
                    await threads.run(descriptors.write, self._fd, data)
            return
        if self._task is None:
            await self._begin()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._pipe, view) :]
            except BlockingIOError:
                await self._room()
            except BrokenPipeError:
                await self.finish()  # tells why, as a rule
                raise errors.Conflict(
                    f"cannot write {self._path[:200]!r}: the sandbox took only a part of it"
                ) from None

    async def finish(self) -> None:
        """Wait until everything is written. Raises as `write` does."""
        self._close()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def abandon(self) -> None:
        """Let go. Idempotent, without effect after `finish`."""
        self._close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _begin(self) -> None:
        source, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        self._task = asyncio.ensure_future(self._inside.fill(self._fd, source, self._path, user=self._user))
        try:
            await asyncio.sleep(0)  # the request is sent, or has a descriptor of its own, when this comes back
        finally:
            os.close(source)

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._pipe, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._pipe)

    def _close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
