"""When sandboxes end by themselves: pure decisions over wall time in Unix seconds.

A lease is the caller's limit on the life of a sandbox. This module says until when one holds and which are over; the
supervisor asks it with the time in hand and acts.
"""

from __future__ import annotations

import heapq

from traforo.domain import errors

MIN_TTL = 1.0
"""Seconds; expiry is enforced to the second, so a shorter lease could not be kept."""


def ttl(asked: float | None, *, default: float, most: float) -> float:
    """Return the length of a lease in seconds. Raises `InvalidRequest` outside of 1 second to `most`."""
    seconds = default if asked is None else asked
    if not MIN_TTL <= seconds <= most:
        raise errors.InvalidRequest(
            f"cannot lease for {seconds:g} seconds: it must be from {MIN_TTL:g} to {most:g}", field="ttl_seconds"
        )
    return float(seconds)


class Deadlines:
    """Keys by the time at which they are due. Setting and dropping are O(log n) and O(1), whatever the number of keys.

    A moved deadline leaves its old place in the heap behind; the heap is rebuilt when most of it is left over, so its
    size stays within twice the keys and a little.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due

    @property
    def slots(self) -> int:
        """Places in the heap, left-over ones included."""
        return len(self._heap)

    def set(self, key: str, at: float) -> None:
        """Make `key` due at `at`, instead of whenever it was."""
        if self._due.get(key) == at:
            return
        self._due[key] = at
        heapq.heappush(self._heap, (at, key))
        self._tidy()

    def drop(self, key: str) -> None:
        """Forget `key`; unknown keys are fine."""
        self._due.pop(key, None)
        self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """Return when the first key is due."""
        while self._heap:
            at, key = self._heap[0]
            if self._due.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def pop(self, now: float) -> list[str]:
        """Take out every key that is due at `now`, the longest overdue first."""
        due: list[str] = []
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[1]
            del self._due[key]
            due.append(key)
        return due
