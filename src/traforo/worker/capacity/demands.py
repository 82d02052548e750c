"""What is likely to be asked for next, from what was asked for: weights that fade, and shares of a fixed number.

Pure. A use counts one, half as much 20 minutes later, and nothing after an hour without another. It makes nothing: it
says how many of each kind should be waiting.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

HALF_LIFE_SECONDS = 20 * 60.0
"""After so long a use counts half."""
FORGET_SECONDS = 60 * 60.0
"""After so long without a use a kind is forgotten."""
MAX_KINDS = 64
"""Kinds that are remembered; beyond it the one that counts least is forgotten."""

K = TypeVar("K", bound=Hashable)


class Demand(Generic[K]):
    """Uses by kind. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._uses: dict[K, tuple[float, float]] = {}
        """Weight, and when it was that."""

    def note(self, kind: K, now: float) -> None:
        """Count a use."""
        self._forget(now)
        self._uses[kind] = (self.weight(kind, now) + 1.0, now)
        if len(self._uses) > MAX_KINDS:
            del self._uses[min(self._uses, key=lambda one: self.weight(one, now))]

    def weight(self, kind: K, now: float) -> float:
        """Return what the uses of a kind count now."""
        weight, at = self._uses.get(kind, (0.0, now))
        return float(weight * 0.5 ** ((now - at) / HALF_LIFE_SECONDS))

    def targets(self, total: int, now: float) -> dict[K, int]:
        """Share `total` out in proportion to the weights, by largest remainder, to the kinds that count most first.

        The kind that counts most gets one at least.
        """
        self._forget(now)
        weights = {kind: self.weight(kind, now) for kind in self._uses}
        everything = sum(weights.values())
        if not weights or total <= 0:
            return {}
        shares = {kind: total * weight / everything for kind, weight in weights.items()}
        found = {kind: math.floor(share) for kind, share in shares.items()}
        left = total - sum(found.values())
        for kind in sorted(shares, key=lambda one: (found[one] - shares[one], -weights[one]))[:left]:
            found[kind] += 1
        hottest = max(weights, key=weights.__getitem__)
        if not found[hottest]:
            found[max(found, key=found.__getitem__)] -= 1
            found[hottest] = 1
        ordered = sorted(found, key=weights.__getitem__, reverse=True)
        return {kind: found[kind] for kind in ordered if found[kind]}

    def _forget(self, now: float) -> None:
        for kind in [kind for kind, (_, at) in self._uses.items() if now - at >= FORGET_SECONDS]:
            del self._uses[kind]
