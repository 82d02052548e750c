"""From the target and the host of a request to the port of a sandbox that it is for. Pure.

Two forms lead there: a path below `/sandboxes/{id}/proxy/{port}`, and a host name `{port}-{dns_id}.{domain}`, whose
every path belongs to the sandbox, so that its pages have an origin of their own. Whether the sandbox exists, and who
may use it, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from traforo.domain import errors, ids

TOKEN_PARAMETER = b"traforo_traffic_token"
"""Parameter of a query that carries a traffic token. It is never forwarded."""
MAX_KNOWN = 1024
"""Most pairs of an id and a port that are remembered, as they were written."""

_MARK = b"/proxy/"
_PATH = re.compile(rb"(/sandboxes/([^/?#]{1,128})/proxy/([^/?#]*))(/[^?#]*)?(\?[^#]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_MAX_PORT = 65535


class Target(NamedTuple):
    """Where a request goes."""

    sandbox_id: str
    """Canonical id."""
    port: int
    path: bytes
    """Path and query for the server inside, without a traffic token; `*` of an OPTIONS."""
    prefix: bytes
    """What comes before that path in the URL of the caller; empty in the host form."""
    token: str | None = None
    """The traffic token in the query."""


class Router:
    """Finds targets, for one domain of host names."""

    def __init__(self, domain: str) -> None:
        name = re.escape(domain.lower().encode())
        self._known: dict[tuple[bytes, bytes], tuple[str, int]] = {}
        self._host = re.compile(rb"([0-9]{1,5})-([a-z0-9]{52})\." + name + rb"\.?(?::[0-9]{0,5})?", re.IGNORECASE)

    def concerns(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request is for a port. Names of headers are in lower case; every request passes here."""
        if _MARK in target and _PATH.fullmatch(_relative(target)[0]):
            return True
        for name, value in headers:
            if name == b"host":
                return self._host.fullmatch(value.strip()) is not None
        return False

    def find(self, target: bytes, host: bytes) -> Target:
        """Return where a request goes that this router is concerned with. Raises `InvalidRequest`, `MalformedId`."""
        path, authority = _relative(target)
        if authority is not None and authority.lower() != host.lower():
            raise errors.InvalidRequest("cannot read the request: its target and 'Host' name two hosts", field="host")
        if found := self._host.fullmatch(host):
            if not path.startswith(b"/") and path != b"*":
                path = b"/" + path
            prefix = b""
            text, number, rest = found[2].lower(), found[1], path
        else:
            parts = _PATH.fullmatch(path)
            if parts is None:
                raise errors.NotFound("no such route", kind="route")
            prefix, text, number = parts[1], parts[2], parts[3]
            rest = (parts[4] or b"/") + (parts[5] or b"")
        known = self._known.get((text, number))
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = str(ids.parse_sandbox_id(text.decode("latin-1"))), port(number.decode("latin-1"))
            self._known[text, number] = known
        rest, token = without_token(rest)
        return Target(known[0], known[1], rest, prefix, token)


def port(text: str) -> int:
    """Read the number of a port. Raises `InvalidRequest`."""
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= _MAX_PORT:
        raise errors.InvalidRequest(f"cannot use port {text[:16]!r}: not a number from 1 to {_MAX_PORT}", field="port")
    return int(text)


def _relative(target: bytes) -> tuple[bytes, bytes | None]:
    """Split a target into what comes after the host, and the host, which only proxies are told."""
    if target.startswith(b"/"):
        return target, None
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target, None
    rest = found[2]
    return rest if rest.startswith(b"/") else b"/" + rest, found[1]


def without_token(path: bytes) -> tuple[bytes, str | None]:
    """Take the traffic token out of a path, or a URL, with a query; return what is left, and the token."""
    if TOKEN_PARAMETER not in path:
        return path, None
    before, _, query = path.partition(b"?")
    kept: list[bytes] = []
    token = None
    for item in query.split(b"&"):
        name, _, value = item.partition(b"=")
        if name == TOKEN_PARAMETER:
            token = value.decode("latin-1")
        else:
            kept.append(item)
    return (before + b"?" + b"&".join(kept) if kept else before), token
