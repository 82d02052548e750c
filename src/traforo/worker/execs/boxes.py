"""The execs of one sandbox that can be asked about: those that run, and the ended ones until there are too many.

Memory and nothing else; it acts on no process and no file.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from traforo.domain import errors, states
from traforo.worker.execs import runs
from traforo.worker.outputs import budgets
from traforo.worker.sandboxes import entries

MAX_RUNNING = 1000
"""Execs of one sandbox that run at once."""
MAX_REMEMBERED = 10_000
"""Execs of one sandbox that can be read; beyond it the one that ended first is forgotten."""


DEFAULT_LOG_BYTES = 1024 * 1024 * 1024
"""Bytes of all logs of one sandbox."""


class Box:
    """The execs of one sandbox. `entry` is None for execs from the journal whose sandbox was not met yet."""

    def __init__(
        self,
        entry: entries.Entry | None,
        log_bytes: int = DEFAULT_LOG_BYTES,
        total: budgets.Total | None = None,
    ) -> None:
        self.entry = entry
        self.budget = budgets.Budget(log_bytes, total)
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
            self._begun(run)
        elif not run.hidden:
            self._ended.append(run.id)

    def end(self, run: runs.Exec) -> list[runs.Exec]:
        """Note that an exec has ended; return those that are forgotten for it."""
        self.running.pop(run.id, None)
        self._over(run)
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

    def page(
        self, limit: int, cursor: str | None, wanted: Callable[[runs.Exec], bool] | None = None
    ) -> tuple[list[runs.Exec], str | None]:
        """Return execs, newest first, from behind the id `cursor` on, and the cursor of the next page."""
        behind = (name for name in self._all if cursor is None or name < cursor)
        names = heapq.nlargest(limit + 1, behind if wanted is None else (n for n in behind if wanted(self._all[n])))
        return [self._all[name] for name in names[:limit]], names[limit - 1] if len(names) > limit else None

    def _begun(self, run: runs.Exec) -> None:
        """Tell the sandbox that it is used; one that runs in the background, or is our own, does not use it."""
        if self.entry is None or run.hidden:
            return
        if run.hold is None and not run.background:
            run.hold = self.entry.activity.hold()
        if run.began:  # else an earlier worker started it, and told so
            self.entry.happenings.tell(states.Happening.EXEC_STARTED, exec_id=run.id, **_facts(run))

    def _over(self, run: runs.Exec) -> None:
        if run.hold is not None:
            run.hold.release()
            run.hold = None
        if self.entry is None or run.hidden or run.outcome is None:
            return
        outcome, happenings = run.outcome, self.entry.happenings
        if outcome.end is states.ExecEnd.OUT_OF_MEMORY:
            happenings.tell(states.Happening.OOM, exec_id=run.id)
        happenings.tell(
            states.Happening.EXEC_ENDED, exec_id=run.id, end=outcome.end, exit_code=outcome.exit_code, **_facts(run)
        )

    def _push_out(self) -> list[runs.Exec]:
        pushed = []
        while len(self._all) > MAX_REMEMBERED and self._ended:
            pushed.append(self._all.pop(self._ended.popleft()))
        return pushed


def _facts(run: runs.Exec) -> dict[str, str]:
    """Return by what else a reader knows an exec."""
    told = {"tag": run.tag, "context_id": run.context_id}
    return {name: value for name, value in told.items() if value is not None}
