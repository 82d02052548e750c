"""What the interpreters of one sandbox may cost the worker together: its time, and its memory.

Code chooses what an interpreter says and how many there are, so a limit for each alone would be none. Pure: it is told,
and answers at once.
"""

from __future__ import annotations

MAX_UNFINISHED_BYTES = 32 * 1024 * 1024
"""Of answers that have begun to come."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of code that waits for its turn."""
TIME_SHARE = 1 / 3
"""Of the event loop, for as long as they like."""
BURST_SECONDS = 0.02
"""Taken at once, before that share counts."""
MAX_REST_SECONDS = 1.0


class Allowance:
    """The limits of one sandbox. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.unfinished = 0
        """Bytes that are held of answers."""
        self.waiting = 0
        """Bytes of code that waits."""
        self._debt = 0.0
        self._at = 0.0

    def spend(self, seconds: float, now: float) -> float:
        """Take note of time that was spent, and return how long to rest for it."""
        self._debt = max(0.0, self._debt - (now - self._at) * TIME_SHARE) + seconds
        self._at = now
        return min(max(0.0, self._debt - BURST_SECONDS) / TIME_SHARE, MAX_REST_SECONDS)

    def rest(self, now: float) -> float:
        """Return how long to rest before anything more is spent."""
        debt = max(0.0, self._debt - (now - self._at) * TIME_SHARE)
        return min(max(0.0, debt - BURST_SECONDS) / TIME_SHARE, MAX_REST_SECONDS)

    def hold(self, count: int) -> bool:
        """Take room for a part of an answer; False where there is none. Give it back with `unfinished -= count`."""
        if self.unfinished + count > MAX_UNFINISHED_BYTES:
            return False
        self.unfinished += count
        return True

    def queue(self, count: int) -> bool:
        """Take room for code that waits; False where there is none. Give it back with `waiting -= count`."""
        if self.waiting + count > MAX_WAITING_BYTES:
            return False
        self.waiting += count
        return True
