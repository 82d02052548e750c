"""Where a request for a sandbox is sent, from the raw request target alone.

The target goes on byte for byte: percent-encoding, trailing slashes and the query are the owner's business. The host is
that of the registered base URL and of nothing in the request, so no request can make a redirect lead elsewhere.
It refuses targets with bytes that could end the header line, and those that are too long to be one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib import parse

from traforo.domain import errors, ids

PREFIX = b"/sandboxes/"
MAX_TARGET_BYTES = 16 * 1024
"""Longest path and query together: what a connection takes as well."""
_MAX_ID_BYTES = 256
_PRINTABLE = bytes(range(0x21, 0x7F))


def target(scope: Mapping[str, Any]) -> bytes:
    """Return path and query of an ASGI scope as they were sent. Raises `InvalidRequest` or `TooLarge`."""
    path: bytes = scope.get("raw_path") or parse.quote(scope["path"]).encode()
    query: bytes = scope.get("query_string", b"")
    found = path + b"?" + query if query else path
    if len(found) > MAX_TARGET_BYTES:
        message = f"cannot redirect: the URL is longer than {MAX_TARGET_BYTES} bytes"
        raise errors.TooLarge(message, limit=MAX_TARGET_BYTES)
    if found.translate(None, _PRINTABLE):
        raise errors.InvalidRequest("cannot redirect: the URL has bytes that must be percent-encoded", field="path")
    return found


def sandbox_id(found: bytes) -> ids.SandboxId:
    """Return the id that a target names. Raises `MalformedId`; and `NotFound` if it is no target of a sandbox."""
    if not found.startswith(PREFIX):
        raise errors.NotFound("no such route", kind="route")
    segment = found[len(PREFIX) :].partition(b"?")[0].partition(b"/")[0]
    if len(segment) > _MAX_ID_BYTES:
        raise errors.MalformedId("malformed sandbox id: too long")
    return ids.parse_sandbox_id(parse.unquote_to_bytes(segment).decode(errors="replace"))


def location(base_url: str, found: bytes, *, scheme: str = "http") -> str:
    """Return the same target at a worker. `base_url` has no path, and the target begins with one slash and a word.

    `scheme` is that of the request: clients of WebSockets follow `ws` and `wss` alone.
    """
    place = base_url.replace("http", "ws", 1) if scheme in {"ws", "wss"} else base_url
    return place + found.decode("ascii")
