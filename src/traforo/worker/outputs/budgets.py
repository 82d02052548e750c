"""How much disk the logs of one sandbox may take together, and those of all, so that nobody's output fills everybody's
disk.

When there is too much, the logs of ended execs go first, the oldest as a whole; then the largest log of those that
run loses its oldest part. Of all sandboxes the one whose logs take most loses first, whether it lives or not. What goes
is counted, and told to readers like everything else that a log drops.
"""

from __future__ import annotations

from typing import Protocol


class Log(Protocol):
    """What a budget knows of a log; `traforo.worker.outputs.framelogs.FrameLog` is one."""

    @property
    def size(self) -> int:
        """Bytes of its files."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing will be added."""
        ...

    def shed(self) -> None:
        """Drop everything if it is finished, else the oldest part, now or with what comes next."""
        ...


class Total:
    """The disk of all logs of a worker; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._budgets: dict[Budget, None] = {}

    def join(self, budget: Budget) -> None:
        """Take in the budget of a sandbox that has logs."""
        self._budgets[budget] = None

    def leave(self, budget: Budget) -> None:
        """Leave out a budget without logs."""
        self._budgets.pop(budget, None)

    def change(self, count: int) -> None:
        """Note that files grew by so many bytes, or shrank; make room when that is too much."""
        self.used += count
        while count > 0 and self.used > self.limit and self._budgets:
            if not max(self._budgets, key=lambda budget: budget.used).give_way():
                return


class Budget:
    """The disk of one sandbox's logs, which are a part of a `total`; `limit` in bytes."""

    def __init__(self, limit: int, total: Total | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._total = total
        self._logs: dict[Log, None] = {}

    def add(self, log: Log) -> None:
        """Take in a log that gets its first file."""
        self._logs[log] = None
        if self._total is not None:
            self._total.join(self)

    def remove(self, log: Log) -> None:
        """Leave out a log that has no file any more."""
        self._logs.pop(log, None)
        if self._total is not None and not self._logs:
            self._total.leave(self)

    def change(self, count: int) -> None:
        """Note that files of a log grew by so many bytes, or shrank; make room when that is too much."""
        self.used += count
        while count > 0 and self.used > self.limit and self.give_way():
            pass
        if self._total is not None:
            self._total.change(count)

    def give_way(self) -> bool:
        """Drop something; False if there is nothing, or only what begins anew with what comes next."""
        victim = self._victim()
        before = self.used
        if victim is not None:
            victim.shed()
        return self.used < before

    def _victim(self) -> Log | None:
        for log in self._logs:
            if log.finished:
                return log
        return max(self._logs, key=lambda log: log.size, default=None)
