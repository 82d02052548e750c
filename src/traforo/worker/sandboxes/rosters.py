"""Every sandbox this worker can still answer for: the live ones, and the ended ones for a while.

Finds by id, lists by owner, and forgets in time. It decides nothing about states and checks no credential; what it
bounds is memory.
"""

from __future__ import annotations

import heapq
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from traforo.domain import errors, states
from traforo.worker.sandboxes import entries

MAX_ENDED = 10_000
"""Ended sandboxes that can be read, however short ago they ended."""
_CURSOR = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, newest first, and the cursor behind which there are more."""

    entries: list[entries.Entry]
    next_cursor: str | None


class Roster:
    """Entries by canonical id. `retention` is in seconds."""

    def __init__(self, *, retention: float, max_ended: int = MAX_ENDED) -> None:
        self._retention = retention
        self._max_ended = max_ended
        self._all: dict[str, entries.Entry] = {}
        self._owned: dict[str | None, dict[str, entries.Entry]] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return len(self._ended)

    def __iter__(self) -> Iterator[entries.Entry]:
        return iter(list(self._all.values()))

    def add(self, entry: entries.Entry) -> None:
        """Take in a new entry; an ended one is to be retired as well."""
        if entry.text_id in self._all:
            raise errors.Internal(f"cannot have {entry.text_id} twice")
        self._all[entry.text_id] = entry
        self._owned.setdefault(entry.owner, {})[entry.text_id] = entry

    def get(self, text_id: str) -> entries.Entry | None:
        """Return the entry with this canonical id."""
        return self._all.get(text_id)

    def retire(self, entry: entries.Entry) -> list[entries.Entry]:
        """Note that an entry has ended; return those that were pushed out because there are too many ended ones."""
        self._ended[entry.text_id] = entry.ended_at or 0.0
        pushed = []
        while len(self._ended) > self._max_ended:
            pushed.append(self.remove(next(iter(self._ended))))
        return pushed

    def prune(self, now: float) -> list[entries.Entry]:
        """Remove and return the entries whose time to be read is over."""
        over = []
        while self._ended:
            text_id, ended_at = next(iter(self._ended.items()))
            if ended_at + self._retention > now:
                break
            over.append(self.remove(text_id))
        return over

    def remove(self, text_id: str) -> entries.Entry:
        """Forget an entry that is there."""
        entry = self._all.pop(text_id)
        self._ended.pop(text_id, None)
        owned = self._owned[entry.owner]
        del owned[text_id]
        if not owned:
            del self._owned[entry.owner]
        return entry

    def page(
        self,
        owner: str | None,
        *,
        state: states.SandboxState | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Return entries of an owner (None: of everybody), newest first, from behind `cursor` on.

        Raises `InvalidRequest` for a cursor that this never gave out.
        """
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor")
        mine = self._all if owner is None else self._owned.get(owner, {})
        found = heapq.nlargest(
            limit + 1,
            (
                entry
                for entry in mine.values()
                if (state is None or entry.state is state) and (cursor is None or entry.id.ulid < cursor)
            ),
            key=lambda entry: entry.id.ulid,
        )
        return Page(found[:limit], found[limit - 1].id.ulid if len(found) > limit else None)
