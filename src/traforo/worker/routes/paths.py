"""What the routes of files share: paths as requests name them and answers show them, and facts about them."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import HTTPConnection

from traforo.domain import clocks, errors
from traforo.worker.files import conditions, paths
from traforo.worker.runtimes import contract

FAILURES = [errors.Forbidden, errors.NotFound, errors.Conflict]
"""What every route of files may raise."""
_FIRST_MOMENT, _LAST_MOMENT = -62135596800.0, 253402300799.0  # what RFC 3339 can say: the years 1 to 9999


class PathQuery(Protocol):
    """A query that names a path in one of two ways."""

    @property
    def path(self) -> str | None:
        """As text."""
        ...

    @property
    def path_b64(self) -> str | None:
        """In base64."""
        ...


def asked(connection: HTTPConnection, query: PathQuery) -> str:
    """Return the path that a query names. Raises `InvalidRequest`.

    Where a query is not UTF-8 the framework puts U+FFFD, which would name another file.
    """
    path = paths.asked(query.path, query.path_b64)
    if "\ufffd" in path and b"%EF%BF%BD" not in connection.scope["query_string"].upper():
        raise errors.InvalidRequest(
            "cannot read the path: not UTF-8", field="path", hint="send the bytes as base64 in 'path_b64'"
        )
    return path


def stat(found: contract.FileStat | None) -> dict[str, Any]:
    """Return what an answer says of a path itself."""
    if found is None:
        return {"exists": False}
    return {
        "exists": True,
        "type": found.kind,
        "size": found.size,
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "modified_at": moment(found.modified_at),
        "target": None if found.target is None else paths.shown(found.target),
        "etag": conditions.etag_of(found),
    }


def entry(found: contract.FileStat) -> dict[str, Any]:
    """Return what a list says of one of its entries."""
    name = found.path.rpartition("/")[2]
    return {
        **paths.fields(name, "name"),
        **paths.fields(found.path),
        "type": found.kind,
        "size": found.size,
        "mode": found.mode,
        "modified_at": moment(found.modified_at),
    }


def moment(seconds: float) -> str:
    """Return a file's time, which its owner may set to anything, or the nearest that can be written down."""
    return clocks.rfc3339(min(max(seconds, _FIRST_MOMENT), _LAST_MOMENT))
