"""How much disk the logs of one sandbox may take together, so that its output cannot fill the disk of its neighbours.

When there is too much, the logs of ended execs go first, the oldest as a whole; then the largest log of those that
run loses its oldest part. What goes is counted, and told to readers like everything else that a log drops.
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


class Budget:
    """The disk of one sandbox's logs; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._logs: dict[Log, None] = {}

    def add(self, log: Log) -> None:
        """Take in a log that gets its first file."""
        self._logs[log] = None

    def remove(self, log: Log) -> None:
        """Leave out a log that has no file any more."""
        self._logs.pop(log, None)

    def change(self, count: int) -> None:
        """Note that files of a log grew by so many bytes, or shrank; make room when that is too much."""
        self.used += count
        while count > 0 and self.used > self.limit and (victim := self._victim()) is not None:
            before = self.used
            victim.shed()
            if self.used == before:
                return  # it begins anew with what comes next

    def _victim(self) -> Log | None:
        for log in self._logs:
            if log.finished:
                return log
        return max(self._logs, key=lambda log: log.size, default=None)
