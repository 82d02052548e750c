"""Where the logs of execs are kept: files in one directory, named by exec, made with the first output.

Also owns the few threads in which logs are read and written when that may take long, and the empty files that are made
ahead. It knows no process and no sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from traforo.worker.execs import runs
from traforo.worker.outputs import blanks, budgets, framelogs

_THREADS = 4
_ROOM_PERCENT = 50
"""Of the disk that is free, or taken by logs already: what logs get."""

T = TypeVar("T")


class LogStore:
    """Logs in `directory`, which holds nothing else."""

    def __init__(self, directory: Path, limits: framelogs.Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._found: dict[str, list[int]] | None = None
        """Files of earlier workers, by exec; None before anybody looked."""
        self._closed = False
        self.executor = futures.ThreadPoolExecutor(_THREADS, "exec-output")
        self._blanks = blanks.Blanks(directory, self.executor)

    def new(self, run: runs.Exec, budget: budgets.Budget | None) -> framelogs.FrameLog:
        """Return the log of an exec that starts, or has no output; without a file."""
        return framelogs.FrameLog(self._stem(run.id), self._limits, self._blanks, budget)

    async def recover(self, run: runs.Exec, budget: budgets.Budget | None) -> framelogs.FrameLog:
        """Return the log of an exec that an earlier worker started. Raises OSError."""
        numbers = (await self._look()).get(run.id, [])
        if numbers:
            recover = functools.partial(
                framelogs.FrameLog.recover, self._stem(run.id), self._limits, numbers, self._blanks, budget
            )
            log = await self.in_thread(recover)
        else:
            log = self.new(run, budget)
        log.missing(runs.amounts(run.written), run.written.frames)
        if run.log is not None:  # somebody else was quicker
            return run.log
        log.count_in(finished=run.outcome is not None)
        run.log = log
        return log

    async def read(self, log: framelogs.FrameLog, work: Callable[[], T], *, inline_bytes: int) -> T:
        """Read a log: at once where it is small, else in a thread."""
        if log.held <= inline_bytes:
            return work()
        reader = object()
        log.readers.add(reader)

        def reading() -> T:
            try:
                return work()
            finally:
                log.readers.discard(reader)

        return await self.in_thread(reading)

    async def remove(self, gone: Iterable[runs.Exec]) -> None:
        """Delete the logs of execs. Files that nobody is reading are used again."""
        used: list[str] = []
        unused: list[str] = []
        for run in gone:
            if run.log is not None:
                (used if run.log.readers else unused).extend(run.log.detach())
            else:
                unused += self._paths(run.id, (await self._look()).pop(run.id, []))
        if used or unused:
            await self.in_thread(functools.partial(self._remove, used, unused))

    async def sweep(self, known: Callable[[str], bool]) -> int:
        """Delete what belongs to no exec that is `known`; return of how many. Once, at start."""
        found = await self._look()
        strangers = [name for name in found if not known(name)]
        paths = [path for name in strangers for path in self._paths(name, found.pop(name))]
        await self.in_thread(functools.partial(self._remove, paths, []))
        await self.in_thread(self._blanks.prepare)
        return len(strangers)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run something that may block."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def close(self) -> None:
        """Let go of threads and empty files. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self.in_thread(self._blanks.close)
        self.executor.shutdown(wait=False)

    async def _look(self) -> dict[str, list[int]]:
        """Return the files that were there when this worker started."""
        if self._found is None:
            found = await self.in_thread(functools.partial(_serials, self._directory))
            if self._found is None:
                self._found = found
        return self._found

    def _stem(self, exec_id: str) -> str:
        return f"{self._directory}/{exec_id}"

    def _paths(self, exec_id: str, numbers: list[int]) -> list[str]:
        return [f"{self._stem(exec_id)}.{number}" for number in numbers]

    def _remove(self, used: list[str], unused: list[str]) -> None:
        for path in used:
            Path(path).unlink(missing_ok=True)
        for path in unused:
            self._blanks.recycle(path)


def _serials(directory: Path) -> dict[str, list[int]]:
    """Return the numbers of the files of each exec, and remove empty files that an earlier worker made ahead."""
    found: dict[str, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            name, _, number = entry.name.rpartition(".")
            if name and number.isascii() and number.isdigit():
                found.setdefault(name, []).append(int(number))
            elif entry.name.startswith(blanks.PREFIX):
                Path(entry.path).unlink(missing_ok=True)
    return found


def room(directory: Path) -> int:
    """Return how many bytes of a disk its logs may take together, so that there is some for everything else."""
    place = next(parent for parent in (directory, *directory.parents) if parent.exists())
    facts = os.statvfs(place)
    held = sum(entry.stat().st_size for entry in os.scandir(directory)) if directory.is_dir() else 0
    return (facts.f_bavail * facts.f_frsize + held) * _ROOM_PERCENT // 100
