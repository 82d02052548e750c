"""How long to wait before a lost connection is made anew, and when to give up. Pure: time is handed in."""

from __future__ import annotations

from traforo.sdk import errors

TRANSIENT = (errors.ConnectionFailed, errors.WorkerUnavailable)
"""What may be over when it is tried again: no connection, or a worker that is being started anew."""
FIRST_SECONDS = 0.05
LONGEST_SECONDS = 2.0
GIVE_UP_SECONDS = 60.0
"""For how long lost connections are made anew before the reader is told."""


class Outage:
    """Growing pauses between attempts, up to an end. One that is over starts from the beginning."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = FIRST_SECONDS

    def pause(self, now: float) -> float | None:
        """Return seconds to wait before the next attempt, or None when it has been tried for long enough."""
        if self._since is None:
            self._since = now
        if now - self._since > GIVE_UP_SECONDS:
            return None
        pause, self._next = self._next, min(self._next * 2, LONGEST_SECONDS)
        return pause

    def over(self) -> None:
        """Note that the server answers."""
        self._since, self._next = None, FIRST_SECONDS
