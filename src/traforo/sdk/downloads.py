"""Reading a file over several connections: which bytes are wanted, and whether they are of the same file. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from traforo.sdk import errors

_WHOLE, _PART = 200, 206


class Span:
    """The bytes of a file that somebody wants, and how many of them are there."""

    def __init__(self, start: int, end: int | None) -> None:
        if start < 0 or (end is not None and end <= start):
            raise errors.InvalidRequest(f"cannot read from {start} to {end}", fields={"field": "start"})
        self._start = start
        self._end = end
        self._etag: str | None = None
        self.read = 0
        """Bytes that were given out."""

    @property
    def resumable(self) -> bool:
        """Whether the server named the version of the file, so that another connection can go on with the same one."""
        return self._etag is not None

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for what is missing."""
        first = self._start + self.read
        if first == 0 and self._end is None:
            return {}
        condition = {"If-Range": self._etag} if self._etag else {}
        return {"Range": f"bytes={first}-{'' if self._end is None else self._end - 1}", **condition}

    def check(self, status: int, headers: Mapping[str, str]) -> None:
        """Look at the head of an answer. Raises `ConnectionFailed` if the file is no longer the same, `BadAnswer`."""
        wanted = _PART if self.headers() else _WHOLE
        if self.read and (status != _PART or headers.get("etag") != self._etag):
            self._etag = None
            raise errors.ConnectionFailed("the connection broke, and the file was changed before it could be made anew")
        if status != wanted:
            raise errors.BadAnswer(f"cannot read a part of the file: the server answered {status}", status=status)
        etag = headers.get("etag")
        # A weak one says only that two versions mean the same.
        self._etag = etag if etag and not etag.startswith("W/") else None


def conditions(new: bool, if_match: str | None) -> dict[str, str]:
    """Return the headers that make a write depend on what is there."""
    found = {"If-None-Match": "*"} if new else {}
    return found | ({"If-Match": if_match} if if_match is not None else {})
