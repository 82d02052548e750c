"""The execs of one sandbox that can be asked about: those that run, and the ended ones until there are too many.

Memory and nothing else; it acts on no process and no file.
"""

from __future__ import annotations

import heapq
from collections import deque

from traforo.domain import errors, states
from traforo.worker import budgets, entries, runs

MAX_RUNNING = 1000
"""Execs of one sandbox that run at once."""
MAX_REMEMBERED = 10_000
"""Execs of one sandbox that can be read; beyond it the one that ended first is forgotten."""


DEFAULT_LOG_BYTES = 1024 * 1024 * 1024
"""Bytes of all logs of one sandbox."""


class Box:
    """The execs of one sandbox. `entry` is None for execs from the journal whose sandbox was not met yet."""

    def __init__(self, entry: entries.Entry | None, log_bytes: int = DEFAULT_LOG_BYTES) -> None:
        self.entry = entry
        self.budget = budgets.Budget(log_bytes)
        """Of its logs."""
        self.running: dict[str, runs.Exec] = {}
        """Those without an outcome, hidden ones too."""
        self.starting = 0
        self._all: dict[str, runs.Exec] = {}
        self._ended: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def dead(self) -> states.EndReason | None:
        """Why the sandbox ended; None while it lives, and while that is not known."""
        return self.entry.reason if self.entry is not None and not self.entry.live else None

    def everything(self) -> list[runs.Exec]:
        """Return every exec, hidden ones that run included."""
        return list((self._all | self.running).values())

    def reserve(self) -> None:
        """Take room for one more. Raises `RateLimited`. Give it back with `starting -= 1`."""
        if len(self.running) + self.starting >= MAX_RUNNING:
            raise errors.RateLimited(
                f"cannot start the command: {MAX_RUNNING} run in this sandbox already",
                limit=MAX_RUNNING,
                hint="wait for some of them to end, or signal them",
            )
        self.starting += 1

    def add(self, run: runs.Exec) -> None:
        """Take in an exec, running or ended."""
        if not run.hidden:
            self._all[run.id] = run
        if run.outcome is None:
            self.running[run.id] = run
        elif not run.hidden:
            self._ended.append(run.id)

    def end(self, run: runs.Exec) -> list[runs.Exec]:
        """Note that an exec has ended; return those that are forgotten for it."""
        self.running.pop(run.id, None)
        if run.hidden:
            return []
        self._ended.append(run.id)
        return self._push_out()

    def show(self, run: runs.Exec) -> list[runs.Exec]:
        """Make a hidden exec that has ended visible; return those that are forgotten for it."""
        run.hidden = False
        self._all[run.id] = run
        self._ended.append(run.id)
        return self._push_out()

    def get(self, exec_id: str) -> runs.Exec | None:
        """Return the exec of this id."""
        return self._all.get(exec_id)

    def page(self, limit: int, cursor: str | None) -> tuple[list[runs.Exec], str | None]:
        """Return execs, newest first, from behind the id `cursor` on, and the cursor of the next page."""
        names = heapq.nlargest(limit + 1, (name for name in self._all if cursor is None or name < cursor))
        return [self._all[name] for name in names[:limit]], names[limit - 1] if len(names) > limit else None

    def _push_out(self) -> list[runs.Exec]:
        pushed = []
        while len(self._all) > MAX_REMEMBERED and self._ended:
            pushed.append(self._all.pop(self._ended.popleft()))
        return pushed
