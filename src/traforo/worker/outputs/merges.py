"""The log of a whole sandbox, decided: in which order output of many execs and events stand, and what a cursor says.

Pure. Every entry has a key, and keys are ordered by time first: of what happened in one millisecond, beginnings come
before output and ends after it. A cursor is the key of the entry before, so it names the same place in every worker
process and whatever else is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from traforo.domain import errors, states

NOBODY = "-"
"""Source of what no exec wrote."""
BEFORE, OUTPUT, AFTER = range(3)
"""Ranks within one millisecond."""

_CURSOR = re.compile(r"([0-9]{1,15})\.([0-2])\.(-|[0-7][0-9A-HJKMNP-TV-Z]{25})\.([0-9]{1,15})", re.ASCII)
_ENDS = frozenset({states.Happening.EXEC_ENDED, states.Happening.STOPPED})


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an entry stands."""

    ms: int
    """Unix milliseconds."""
    rank: int
    source: str
    """ULID of the exec, or `NOBODY`."""
    number: int
    """Of the frame in its log, or of the event."""

    def __str__(self) -> str:
        return f"{self.ms}.{self.rank}.{self.source}.{self.number}"


START = Key(0, BEFORE, "", -1)
"""Before everything."""


def parse(cursor: str | None) -> Key:
    """Read a cursor; none is the start. Raises `InvalidRequest`."""
    if not cursor:
        return START
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor")
    return Key(int(match[1]), int(match[2]), match[3], int(match[4]))


def of_event(kind: states.Happening, at: float, number: int) -> Key:
    """Return the key of an event."""
    return Key(int(at * 1000), AFTER if kind in _ENDS else BEFORE, NOBODY, number)


def of_frame(source: str, ms: int, number: int, after: Key) -> Key:
    """Return the key of a frame. Where the clock was set back within one log it stands behind the one before."""
    if after.source == source and after.ms > ms:
        ms = after.ms
    return Key(ms, OUTPUT, source, number)


def first_after(after: Key, source: str, oldest: int, count: int, ms_of: Callable[[int], int | None]) -> int:
    """Return the number of the first frame of a log that stands behind `after`; `count` when none does.

    `ms_of` tells the time of a frame between `oldest` and `count`, None of one that is gone by now. It is called about
    log2(count) times.
    """
    if after.source == source:
        return max(oldest, after.number + 1)
    low, high = oldest, count
    while low < high:
        middle = (low + high) // 2
        ms = ms_of(middle)
        if ms is None or Key(ms, OUTPUT, source, middle) <= after:
            low = middle + 1
        else:
            high = middle
    return low
