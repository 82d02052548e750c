"""A store that forgets everything with its process: for tests, and the model that the real ones are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from traforo.domain import errors, workers
from traforo.store import contract


class MemoryStore:
    """A `Store` in two dictionaries."""

    def __init__(self) -> None:
        self._members: dict[str, workers.Member] = {}
        self._used_tokens: dict[str, float] = {}

    async def members(self) -> Sequence[workers.Member]:
        """Return every member, in the order of their ids."""
        return [self._members[worker_id] for worker_id in sorted(self._members)]

    async def used_tokens(self, now: float) -> Sequence[contract.UsedToken]:
        """Return the used tokens that have not expired at `now`, in the order of their ids."""
        return [contract.UsedToken(jti, until) for jti, until in sorted(self._used_tokens.items()) if until > now]

    async def write(self, batch: contract.Batch) -> None:
        """Carry out a batch as a whole or not at all."""
        members = {key: member for key, member in self._members.items() if key not in batch.removed}
        members |= {member.worker.worker_id: member for member in batch.put}
        for worker_id, lease in batch.renewed.items():
            if worker_id in members:
                members[worker_id] = dataclasses.replace(members[worker_id], lease=lease)
        if len({member.hash for member in members.values()}) < len(members):
            raise errors.Internal("cannot write: two workers with one hash")
        self._members = members
        for token in batch.used_tokens:
            self._used_tokens[token.jti] = max(token.expires_at, self._used_tokens.get(token.jti, token.expires_at))
        if (moment := batch.tokens_expired_at) is not None:
            self._used_tokens = {jti: until for jti, until in self._used_tokens.items() if until > moment}

    async def close(self) -> None:
        """Let go of the database."""
