"""One page of sandboxes out of the pages of many workers, decided without I/O.

Each worker gives its own newest first, and its cursor is the ULID of the last one it gave. ULIDs order the sandboxes of
all workers alike, so the same kind of cursor goes through the merged list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traforo.domain import errors, ids

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """One sandbox as its worker describes it."""

    ulid: str
    sandbox: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Some sandboxes, newest first."""

    rows: Sequence[Row]
    next_cursor: str | None
    """ULID behind which there are more; None where there are none."""


def cursor(text: str | None) -> str | None:
    """Check a cursor of the list, if there is one. Raises `InvalidRequest`."""
    if text is not None and not _ULID.fullmatch(text):
        raise errors.InvalidRequest("cannot continue the list: malformed cursor", field="cursor")
    return text


def page(sandboxes: Sequence[Mapping[str, Any]], next_cursor: str | None) -> Page:
    """Read the page of a worker. Raises `MalformedId` and `InvalidRequest` for one that makes no sense."""
    rows = [Row(ids.parse_sandbox_id(str(sandbox.get("sandbox_id"))).ulid, sandbox) for sandbox in sandboxes]
    return Page(rows, cursor(next_cursor))


def merge(pages: Sequence[Page], limit: int) -> Page:
    """Return the newest `limit` sandboxes of all pages, and where to go on.

    A page that has more behind it hides whatever is older than its cursor: sandboxes of other workers that old wait for
    the next page, so that nothing is passed over.
    """
    horizon = max((page.next_cursor for page in pages if page.next_cursor is not None), default="")
    rows = sorted((row for page in pages for row in page.rows), key=lambda row: row.ulid, reverse=True)
    shown = [row for row in rows if row.ulid >= horizon][:limit]
    more = len(shown) < len(rows) or bool(horizon)
    return Page(shown, (shown[-1].ulid if shown else horizon) if more else None)
