"""What a caller makes a request for a file depend on: entity tags and times, as RFC 9110 has them. Pure.

A tag is made of a file's time of change, size and inode: it costs one system call and nothing is read for it. A writer
who sets the time back can make two contents have one tag; nobody else can.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import enum
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from traforo.worker.runtimes import contract

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"')
_LAST_SECOND = 253402300799  # of the year 9999, the last that a date of HTTP can say


class Verdict(enum.Enum):
    """What the conditions of a request come to."""

    GO_ON = "go on"
    UNCHANGED = "unchanged"
    """The caller has it already."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one request, as its headers say them. Empty: none."""

    match: str = ""
    none_match: str = ""
    modified_since: str = ""
    unmodified_since: str = ""
    only_range: str = ""
    """`If-Range`: send a range only of this version."""

    @property
    def exclusive(self) -> bool:
        """Whether a file may be made, and none replaced."""
        return self.none_match.strip() == "*"

    @property
    def any(self) -> bool:
        """Whether there is a condition for a write."""
        return bool(self.match or self.none_match or self.unmodified_since)


NONE = Conditions()


def of(headers: Mapping[str, str]) -> Conditions:
    """Read the headers of a request."""
    return Conditions(
        headers.get("if-match", ""),
        headers.get("if-none-match", ""),
        headers.get("if-modified-since", ""),
        headers.get("if-unmodified-since", ""),
        headers.get("if-range", ""),
    )


def etag(found: os.stat_result) -> str:
    """Return the entity tag of an open file."""
    return _etag(found.st_mtime_ns, found.st_size, found.st_ino)


def etag_of(found: contract.FileStat) -> str | None:
    """Return the entity tag that reading a path would give; None for what is no file, or where it cannot be told."""
    if found.kind is not contract.FileKind.FILE or found.modified_ns is None or found.inode is None:
        return None
    return _etag(found.modified_ns, found.size, found.inode)


def last_modified(found: os.stat_result) -> str:
    """Return a file's time as a date of HTTP, or the nearest that can be said."""
    return email.utils.formatdate(_second(found), usegmt=True)


def read(conditions: Conditions, found: os.stat_result) -> Verdict:
    """Decide about reading a file."""
    tag = etag(found)
    if conditions.match:
        if not names(conditions.match, tag):
            return Verdict.FAILED
    elif _changed_since(conditions.unmodified_since, found) is True:
        return Verdict.FAILED
    if conditions.none_match:
        return Verdict.UNCHANGED if names(conditions.none_match, tag, weak=True) else Verdict.GO_ON
    unchanged = _changed_since(conditions.modified_since, found) is False
    return Verdict.UNCHANGED if unchanged else Verdict.GO_ON


def write(conditions: Conditions, found: os.stat_result | None) -> Verdict:
    """Decide about writing a file; None where nothing is there yet."""
    if found is None:
        return Verdict.FAILED if conditions.match else Verdict.GO_ON
    tag = etag(found)
    if conditions.match:
        if not names(conditions.match, tag):
            return Verdict.FAILED
    elif _changed_since(conditions.unmodified_since, found) is True:
        return Verdict.FAILED
    if conditions.none_match and names(conditions.none_match, tag, weak=True):
        return Verdict.FAILED
    return Verdict.GO_ON


def range_holds(conditions: Conditions, found: os.stat_result) -> bool:
    """Tell whether a range may be sent: always, unless `If-Range` names another version than this one."""
    if not conditions.only_range:
        return True
    if conditions.only_range.startswith(('"', "W/")):
        return conditions.only_range == etag(found)  # a weak tag never is: it says nothing of single bytes
    return _moment(conditions.only_range) == _second(found)


def names(header: str, tag: str, *, weak: bool = False) -> bool:
    """Tell whether a list of tags has this one, or is `*`. What is no tag in it counts for nothing."""
    if header.strip() == "*":
        return True
    said = (found[0] for found in _TAG.finditer(header))
    return any(one == tag or (weak and one.removeprefix("W/") == tag) for one in said)


def _etag(modified_ns: int, size: int, inode: int) -> str:
    return f'"{modified_ns:x}-{size:x}-{inode:x}"'


def _changed_since(header: str, found: os.stat_result) -> bool | None:
    """Tell whether a file is newer than a date; None where the header is none."""
    moment = _moment(header) if header else None
    return None if moment is None else _second(found) > moment


def _second(found: os.stat_result) -> int:
    return min(max(int(found.st_mtime_ns // 1_000_000_000), 0), _LAST_SECOND)


def _moment(header: str) -> int | None:
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp())
