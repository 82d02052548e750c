"""What a store must do. The control plane knows stores by this contract, and `tests/contract` holds each one to it.

A store is written in batches: everything that changed since the last write is one transaction, however many workers
sent a heartbeat meanwhile. What `write` has returned from outlives the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from traforo.domain import workers


@dataclass(frozen=True, slots=True)
class UsedToken:
    """A token id that must not be accepted again before the token itself has expired."""

    jti: str
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one transaction, carried out in the order of the fields."""

    removed: Sequence[str] = ()
    """Ids of workers to forget; unknown ones are fine."""
    put: Sequence[workers.Member] = ()
    """Members to insert or to replace as a whole. No two members of a store share a hash."""
    renewed: Mapping[str, workers.Lease] = field(default_factory=dict)
    """New leases by worker id; unknown ids are left alone."""
    used_tokens: Sequence[UsedToken] = ()
    """Token ids to remember; one that is known keeps its later expiry."""
    tokens_expired_at: float | None = None
    """Token ids that have expired at this moment (Unix seconds) are forgotten."""

    def __bool__(self) -> bool:
        return bool(self.removed or self.put or self.renewed or self.used_tokens or self.tokens_expired_at)


class Store(Protocol):
    """Keeps members and used token ids. Every method raises `Internal` when the database cannot do its part."""

    async def members(self) -> Sequence[workers.Member]:
        """Return every member, in the order of their ids."""
        ...

    async def used_tokens(self, now: float) -> Sequence[UsedToken]:
        """Return the used tokens that have not expired at `now`, in the order of their ids."""
        ...

    async def write(self, batch: Batch) -> None:
        """Carry out a batch as a whole or not at all."""
        ...

    async def close(self) -> None:
        """Let go of the database. Idempotent; nothing else may be called afterwards."""
        ...
