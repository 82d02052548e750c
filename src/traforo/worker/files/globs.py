"""Patterns of paths: `*`, `?` and `[…]` within a name, `**` for any number of directories. Pure.

A pattern without a slash is about names, wherever they are; one with a slash about the whole path below the directory
that is searched. Time is bounded by the product of both lengths: names come from a sandbox and patterns from anybody.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Sequence

from traforo.domain import errors

MAX_CHARACTERS = 1024
"""Longest pattern."""
_WILD = frozenset("*?[")
_Segment = Callable[[str], object] | None
"""Tells whether a name fits; None is `**`."""


class Glob:
    """A compiled pattern."""

    def __init__(self, pattern: str) -> None:
        """Compile. Raises `InvalidRequest` for an empty one, `TooLarge`."""
        if len(pattern) > MAX_CHARACTERS:
            raise errors.TooLarge(
                f"cannot use a pattern of more than {MAX_CHARACTERS} characters", limit=MAX_CHARACTERS, field="pattern"
            )
        parts = [part for part in pattern.split("/") if part]
        if not parts or "\0" in pattern:
            raise errors.InvalidRequest("cannot use the pattern: it names nothing", field="pattern")
        if "/" not in pattern.rstrip("/"):
            parts.insert(0, "**")
        self._directories_only = pattern.endswith("/")
        segments = _segments(parts)
        # What stands behind the last `**` is about the last names, and most names fail there.
        self._tail = list(itertools.takewhile(lambda segment: segment is not None, reversed(segments)))
        self._segments = segments[: len(segments) - len(self._tail)]

    def fits(self, path: str, *, directory: bool = False) -> bool:
        """Tell whether a path, relative to where the search began, fits."""
        if self._directories_only and not directory:
            return False
        if not self._segments:
            names = path.split("/")
            return len(names) == len(self._tail) and _ends(self._tail, names)
        names = path.rsplit("/", len(self._tail))
        rest = len(names) - len(self._tail)
        if rest < 0 or not _ends(self._tail, names):
            return False
        return len(self._segments) == 1 or _fits(self._segments, names[0].split("/") if rest else [])


def _segments(parts: Sequence[str]) -> list[_Segment]:
    found: list[_Segment] = []
    for part in parts:
        if part == "**":
            if not found or found[-1] is not None:
                found.append(None)
        elif _WILD.isdisjoint(part):
            found.append(part.__eq__)
        else:
            found.append(_matcher(part))
    return found


def _matcher(part: str) -> _Segment:
    try:
        return re.compile(fnmatch.translate(part)).match
    except re.error as error:
        raise errors.InvalidRequest(f"cannot use the pattern {part[:80]!r}: {error}", field="pattern") from error


def _ends(tail: Sequence[_Segment], names: Sequence[str]) -> bool:
    """Tell whether the last names fit, given what they are to be from the last one on."""
    return all(segment is None or segment(name) for segment, name in zip(tail, reversed(names), strict=False))


def _fits(segments: Sequence[_Segment], names: Sequence[str]) -> bool:
    """Match as for `*` in a name: where a later `**` is reached, what an earlier one took can stay as it is."""
    at = name = 0
    wild: int | None = None
    taken = 0
    while name < len(names):
        segment = segments[at] if at < len(segments) else _NOTHING
        if segment is None:
            wild, taken = at, name
            at += 1
        elif segment(names[name]):
            at += 1
            name += 1
        elif wild is not None:
            taken += 1
            at, name = wild + 1, taken
        else:
            return False
    return all(segment is None for segment in segments[at:])


def _NOTHING(_: str) -> bool:  # noqa: N802 - a constant that is a function
    return False
