"""Work that no caller's end may cancel: begun for a request, finished for the sandbox's sake.

Everything started here is held until it is done and can be waited for when the worker stops. This is the supervisor
of tasks: the one place where an unexpected exception of background work ends, in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from traforo.domain import errors
from traforo.telemetry import logs

T = TypeVar("T")


class Tasks:
    """The background work of one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._log = logs.get(__name__)

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` to its end. What it raises reaches whoever awaits the task; a defect is logged in any case."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, and return what it returns to a caller who may be cancelled meanwhile."""
        return await asyncio.shield(self.spawn(work))

    async def drain(self) -> None:
        """Return when nothing runs any more, not even what was started meanwhile."""
        while self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, errors.TraforoError):
            self._log.error("task_failed", exc_info=error)
