"""What a preparation has used so far of its limits, and the way to stop it from outside.

One `Budget` goes through every reader of one image, so that ten layers of a tenth of the limit count as what they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from traforo.domain import errors
from traforo.worker.images.limits import Limits

_BETWEEN_LOOKS = 64 * 1024 * 1024
"""Bytes between two looks at the free room of the disk."""


def free_bytes_of(path: str) -> Callable[[], int]:
    """Return a function that tells the free bytes of the file system that holds `path`."""

    def look() -> int:
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    return look


class Budget:
    """Counts unpacked bytes and compares them with the limits. Used by one thread; `stop` may come from another."""

    def __init__(self, limits: Limits, *, stop: threading.Event, free_bytes: Callable[[], int]) -> None:
        """Start with nothing used. `free_bytes` tells the room left on the disk that is written to."""
        self.limits = limits
        self.unpacked = 0
        self._stop = stop
        self._free_bytes = free_bytes
        self._look_at = 0

    def renewed(self) -> Budget:
        """Return a budget with nothing used, for another form of the same bytes."""
        return Budget(self.limits, stop=self._stop, free_bytes=self._free_bytes)

    def spend(self, count: int) -> None:
        """Count bytes that came out of a layer or an archive.

        Raises `TooLarge` past `unpacked_bytes`, `NoCapacity` when the disk gets full, `WorkerUnavailable` when the
        worker stops.
        """
        if self._stop.is_set():
            raise errors.WorkerUnavailable("cannot prepare the image: the worker is stopping")
        self.unpacked += count
        if self.unpacked > self.limits.unpacked_bytes:
            raise errors.TooLarge(
                f"cannot unpack the image: it is larger than {self.limits.unpacked_bytes} bytes",
                limit=self.limits.unpacked_bytes,
            )
        if self.unpacked >= self._look_at:
            self._look_at = self.unpacked + _BETWEEN_LOOKS
            if self._free_bytes() < self.limits.free_bytes:
                raise errors.NoCapacity(
                    "cannot unpack the image: the disk of the host is nearly full", resource="disk_mib"
                )

    def check_ratio(self, *, packed: int, unpacked: int) -> None:
        """Raise `TooLarge` when one stream grows like no honest one does."""
        if unpacked > self.limits.ratio_free_bytes and unpacked > packed * self.limits.ratio:
            raise errors.TooLarge(
                f"cannot unpack the image: a layer grows to more than {self.limits.ratio} times its size",
                limit=self.limits.ratio,
            )
