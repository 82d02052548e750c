"""Time as a value that is handed in, so that whatever depends on it can be tested without waiting.

Wall time is for what people and other hosts read (`created_at`, `expires_at`); durations are measured on the
monotonic clock; deadlines that the spawner enforces are on the boot clock, which both processes share.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Reads time. Implementations: `SystemClock`, and a settable one in the tests."""

    def now(self) -> float:
        """Return wall time in seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return monotonic time in seconds; only differences have a meaning."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Return wall time in seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return monotonic time in seconds; only differences have a meaning."""
        return time.monotonic()


def rfc3339(seconds: float) -> str:
    """Format wall time (Unix seconds) as RFC 3339 in UTC with milliseconds, as the API prints every time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
