"""One-use ids: a token that creates something works once.

The guard remembers an id until its token would have expired anyway, so memory is bounded by what is accepted meanwhile,
and by a hard limit: when it is full, new ids are refused rather than old ones forgotten.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from traforo.domain import errors

CAPACITY = 262_144
"""Ids that are remembered at once: about 50 MB, an hour of 70 creates a second."""

OnUse = Callable[[str, float], None]
"""Told of each id and its expiry (Unix seconds) at the moment of its use, before the use is acknowledged: a journal."""


def _forget(_: str, __: float) -> None:
    """Keep no journal."""


class ReplayGuard:
    """Remembers the ids that were used up."""

    def __init__(self, *, capacity: int = CAPACITY, on_use: OnUse = _forget) -> None:
        self._capacity = capacity
        self._on_use = on_use
        self._used: set[str] = set()
        self._expiries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._used)

    def use(self, jti: str, expires_at: float, now: float) -> None:
        """Use up an id. Times are Unix seconds.

        Raises:
            Unauthenticated: It was used before, or its token has expired; `reason` is `replayed` or `expired`.
            RateLimited: Too many ids are in use.
        """
        self._expire(now)
        if expires_at <= now:
            raise errors.Unauthenticated("cannot accept the token: it has expired", reason="expired")
        if jti in self._used:
            raise errors.Unauthenticated("cannot accept the token: it was used before", reason="replayed")
        if len(self._used) >= self._capacity:
            raise errors.RateLimited("cannot accept the token: too many unexpired ones were used", limit=self._capacity)
        self._on_use(jti, expires_at)
        self._remember(jti, expires_at)

    def restore(self, used: Iterable[tuple[str, float]], now: float) -> None:
        """Remember ids that were used before this process started, as (id, expiry) pairs."""
        for jti, expires_at in used:
            if expires_at > now and jti not in self._used:
                self._remember(jti, expires_at)

    def _remember(self, jti: str, expires_at: float) -> None:
        self._used.add(jti)
        heapq.heappush(self._expiries, (expires_at, jti))

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            self._used.discard(heapq.heappop(self._expiries)[1])
