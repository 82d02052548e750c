"""Everything below a directory, within limits: how much at once, and for how many requests at a time.

A walk is as large as the sandbox makes it. So it has a largest size, past which it is refused, and few may be held at
once: a caller who wants more is told to come back. What is found is sorted by the bytes of its path, so parents come
before what is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Iterator, Sequence

from traforo.domain import errors
from traforo.worker.files import paths
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

MAX_ENTRIES = 100_000
"""Most entries of one walk."""
PER_SANDBOX = 4
"""Most walks of one sandbox that are held at once."""
AT_ONCE = 32
"""Most walks of this worker."""
_SORTED_AT_ONCE = 2000
"""Entries of a call that nobody can interrupt."""


class Turns:
    """Counts the walks that are held."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    @contextlib.contextmanager
    def turn(self, entry: entries.Entry) -> Iterator[None]:
        """Hold one walk of a sandbox, and its activity. Raises `RateLimited`."""
        held = self._held.get(entry.text_id, 0)
        if held >= PER_SANDBOX or sum(self._held.values()) >= AT_ONCE:
            raise errors.RateLimited(
                "cannot walk the tree now: too many requests do",
                hint=f"at most {PER_SANDBOX} for one sandbox and {AT_ONCE} for a worker, a tar download included",
            )
        self._held[entry.text_id] = held + 1
        try:
            with entry.activity.hold():
                yield
        finally:
            left = self._held.pop(entry.text_id) - 1
            if left:
                self._held[entry.text_id] = left


async def walk(
    inside: contract.Files, path: str, *, user: str, recursive: bool = True, limit: int | None = None
) -> list[contract.FileStat]:
    """Return what is below a directory, sorted. Raises `TooLarge` for more than `limit` (`MAX_ENTRIES`) entries."""
    limit = MAX_ENTRIES if limit is None else limit
    listing = await inside.list(path, user=user, recursive=recursive, limit=limit + 1)
    if listing.truncated or len(listing.entries) > limit:
        raise errors.TooLarge(
            f"cannot list {paths.shown(path)[:200]!r}: more than {limit} entries",
            limit=limit,
            hint="ask for a directory below it",
        )
    if len(listing.entries) <= _SORTED_AT_ONCE:
        return sorted(listing.entries, key=_key)
    return await asyncio.to_thread(_sorted, listing.entries)


def relative(base: str, path: str) -> str:
    """Return a path below a directory without that directory."""
    return path[len(base.rstrip("/")) + 1 :]


def _sorted(found: Sequence[contract.FileStat]) -> list[contract.FileStat]:
    """Sort piece by piece: one call over long paths would keep the interpreter from the event loop all the while."""
    pieces = [
        sorted(found[begin : begin + _SORTED_AT_ONCE], key=_key) for begin in range(0, len(found), _SORTED_AT_ONCE)
    ]
    return list(heapq.merge(*pieces, key=_key))


def _key(stat: contract.FileStat) -> bytes:
    return stat.path.encode(errors="surrogateescape")
