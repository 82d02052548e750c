"""Uid ranges of sandboxes: 65,536 host uids each, no two live sandboxes share one. Pure bookkeeping."""

from __future__ import annotations

from traforo.domain import errors
from traforo.worker.runtimes.container import plans

LAST_UID = 0xFFFF0000
"""Ranges end below this; the highest uids mean "nobody" and "no change" to the kernel."""


class Slots:
    """Gives out first uids of ranges, the one that was free the longest first."""

    def __init__(self, uid_base: int, limit: int) -> None:
        self._base = uid_base
        self._limit = min(limit, (LAST_UID - uid_base) // plans.UIDS_PER_SANDBOX)
        self.end = uid_base + max(0, self._limit) * plans.UIDS_PER_SANDBOX
        """The first uid behind all ranges."""
        self._next = 0
        self._free: dict[int, None] = {}
        self._used: set[int] = set()

    def take(self) -> int:
        """Return the first uid of a free range. Raises `NoCapacity`."""
        while self._next < self._limit:
            number = self._next
            self._next += 1
            if number not in self._used:
                self._used.add(number)
                return self._base + number * plans.UIDS_PER_SANDBOX
        if not self._free:
            raise errors.NoCapacity("every uid range is in use", resource="uids")
        number = next(iter(self._free))
        del self._free[number]
        self._used.add(number)
        return self._base + number * plans.UIDS_PER_SANDBOX

    def adopt(self, uid: int) -> None:
        """Mark the range of a sandbox that lives already."""
        number, rest = divmod(uid - self._base, plans.UIDS_PER_SANDBOX)
        if rest == 0 and 0 <= number < self._limit:
            self._free.pop(number, None)
            self._used.add(number)

    def give_back(self, uid: int) -> None:
        """Free a range whose sandbox is dead."""
        number, rest = divmod(uid - self._base, plans.UIDS_PER_SANDBOX)
        if rest == 0 and number in self._used:
            self._used.discard(number)
            self._free[number] = None
