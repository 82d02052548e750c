"""Creates that may be asked for twice: an `Idempotency-Key` of one owner names one sandbox for ten minutes.

A caller who got no answer asks again with the same key and gets the sandbox of the first time, whether that create is
done or still under way. Failed creates are forgotten, so that trying again means trying again. The memory is bounded;
what is pushed out of it early merely loses this convenience.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.sandboxes import entries

KEEP_SECONDS = 600.0
"""How long a key is remembered."""
MAX_KEYS = 10_000
"""Keys remembered at once; the oldest goes first."""
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a caller sent along to be recognised: the key, and a digest of everything asked for."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Known:
    fingerprint: str
    result: asyncio.Future[entries.Entry]
    until: float


def check(key: str) -> str:
    """Return the key if it can be one. Raises `InvalidRequest`."""
    if 0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable():
        return key
    raise errors.InvalidRequest(
        f"cannot use the Idempotency-Key: it must be 1 to {MAX_KEY_LENGTH} printable ASCII characters",
        field="Idempotency-Key",
    )


class Repeats:
    """The keys of the last ten minutes, by owner."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str | None, str], _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, owner: str | None, repeat: Repeat, now: float) -> asyncio.Future[entries.Entry] | None:
        """Return what a create with this key came or comes to. Raises `Conflict` if it asked for something else."""
        self._prune(now)
        known = self._known.get((owner, repeat.key))
        if known is None:
            return None
        if known.fingerprint != repeat.fingerprint:
            raise errors.Conflict(
                "cannot repeat the create: its Idempotency-Key came with another request before",
                hint="use a new Idempotency-Key for a new sandbox",
            )
        return known.result

    def put(self, owner: str | None, repeat: Repeat, result: asyncio.Future[entries.Entry], now: float) -> None:
        """Remember the create that was begun at `now`; it is forgotten again if it fails."""
        place = (owner, repeat.key)
        known = self._known[place] = _Known(repeat.fingerprint, result, now + KEEP_SECONDS)
        self._known.move_to_end(place)
        while len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)

        def done(future: asyncio.Future[entries.Entry]) -> None:
            if (future.cancelled() or future.exception() is not None) and self._known.get(place) is known:
                del self._known[place]

        result.add_done_callback(done)

    def _prune(self, now: float) -> None:
        while self._known and next(iter(self._known.values())).until <= now:
            self._known.popitem(last=False)
