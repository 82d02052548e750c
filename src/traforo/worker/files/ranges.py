"""Ranges of bytes in requests (`Range: bytes=…`). Pure.

One range is served. Several at once, and other units, are ignored as RFC 9110 allows: the caller gets everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from traforo.domain import errors

_ONE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,32})[ \t]*-[ \t]*([0-9]{0,32})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Range:
    """Some bytes of a file, at least one."""

    first: int
    last: int
    """Of this number, included."""

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    def header(self, size: int) -> str:
        """Return `Content-Range` for a file of `size` bytes."""
        return f"bytes {self.first}-{self.last}/{size}"


def parse(header: str, size: int) -> Range | None:
    """Return the range that a header asks of a file of `size` bytes; None for everything.

    Raises `RangeNotSatisfiable` for one that the file has nothing of.
    """
    found = _ONE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last so many bytes
        length = min(int(found[2]), size)
        if not length:
            raise _refused(size)
        return Range(size - length, size - 1)
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2]) < first:
        return None  # nonsense, which is ignored
    if first >= size:
        raise _refused(size)
    return Range(first, last)


def _refused(size: int) -> errors.RangeNotSatisfiable:
    return errors.RangeNotSatisfiable(f"cannot send this range: the file has {size} bytes", size=size)
