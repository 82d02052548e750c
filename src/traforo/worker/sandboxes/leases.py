"""When sandboxes end by themselves: pure decisions over time in seconds.

A lease is the caller's limit on the life of a sandbox, an idle limit the one on how long nobody uses it. This module
says until when they hold and which are over; the supervisor asks it with the time in hand and acts.
"""

from __future__ import annotations

import heapq

from traforo.domain import errors

MIN_TTL = 1.0
"""Seconds; expiry is enforced to the second, so a shorter lease could not be kept."""

MIN_IDLE = 5.0
"""Seconds; a caller has to have the time to come back."""
NO_IDLE = 0.0
"""Asked for in a renewal, it takes the idle limit away."""
_SLACK = 0.001  # seconds; less is what floating point leaves over


def ttl(asked: float | None, *, default: float, most: float) -> float:
    """Return the length of a lease in seconds. Raises `InvalidRequest` outside of 1 second to `most`."""
    seconds = default if asked is None else asked
    if not MIN_TTL <= seconds <= most:
        raise errors.InvalidRequest(
            f"cannot lease for {seconds:.12g} seconds: it must be from {MIN_TTL:g} to {most:.12g}", field="ttl_seconds"
        )
    return float(seconds)


def idle(asked: float | None, *, most: float) -> float | None:
    """Return an idle limit in seconds, None for none. Raises `InvalidRequest` outside of 5 seconds to `most`."""
    if asked is None or asked == NO_IDLE:
        return None
    if not MIN_IDLE <= asked <= most:
        raise errors.InvalidRequest(
            f"cannot end the sandbox after {asked:g} idle seconds: it must be from {MIN_IDLE:g} to {most:g}",
            field="idle_seconds",
        )
    return float(asked)


def idle_left(limit: float, idle_for: float) -> float:
    """Return in how many seconds a sandbox that was idle for so long has to be looked at again; 0: it is over.

    That is never later than the limit can be reached: whoever uses it meanwhile only moves the moment away.
    """
    left = limit - idle_for
    return left if left > _SLACK else 0.0


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
