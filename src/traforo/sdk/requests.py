"""What the SDK asks for, as pure functions: URLs, bodies, credentials and redirects. No I/O; answers are in `answers`.

A client's own token goes to the origin that the caller named, and with a sandbox that has no token of its own to the
worker which that origin named. A redirect alone never carries it to another host.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from traforo.sdk import errors

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_REDIRECTS = 5
"""A create is sent on once, and once more for each worker that refused it."""
STDIN_BYTES = 128 * 1024
"""Input that goes along with the request that starts a command; more is written to it afterwards."""
MAX_PAGE = 1000
"""Most items of a list that the API gives at once."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ID = re.compile(r"[A-Za-z0-9_]{1,128}", re.ASCII)


@dataclass(slots=True)
class Place:
    """Where to send requests about one sandbox, and the credential that goes with them. Shared by all its handles."""

    url: str
    """Without a slash at the end; routes of the sandbox are appended."""
    token: str | None
    """Of the sandbox itself; None sends the client's. Replaced when a renewal gives out another."""


def base_url(given: str | None, environ: Mapping[str, str]) -> str:
    """Return the server's URL: the given one, else TRAFORO_URL, else the local default. Raises `InvalidRequest`."""
    url = given or environ.get("TRAFORO_URL") or DEFAULT_URL
    return _checked(url, "url").rstrip("/")


def sandbox_place(connect_url: str, sandbox_id: str, token: str | None) -> Place:
    """Return where a sandbox is reached, given what its create answered."""
    url = _checked(connect_url, "connect_url").rstrip("/")
    own = f"/sandboxes/{sandbox_id}"
    return Place(url if url.endswith(own) else url + own, token)


def checked_id(text: str) -> str:
    """Return an id that is safe within a URL. Raises `MalformedId`."""
    if not _ID.fullmatch(text):
        raise errors.MalformedId(f"malformed id {text[:80]!r}")
    return text


def same_origin(one: str, other: str) -> bool:
    """Return whether two URLs have one scheme, host and port."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, as a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def redirected(url: str, location: str | None) -> str:
    """Return where an answer sends on to. Raises `BadAnswer` for nowhere, for no HTTP, and for out of TLS."""
    if not location:
        raise errors.BadAnswer(f"cannot follow redirect from {url!r}: it names no location")
    target = urljoin(url, location)
    try:
        old, new = urlsplit(url), urlsplit(_checked(target, "location"))
    except errors.InvalidRequest as error:
        raise errors.BadAnswer(f"cannot follow redirect from {url!r}: {error}") from error
    if old.scheme == "https" and new.scheme != "https":
        raise errors.BadAnswer(
            f"cannot follow redirect from {url!r} to {origin(target)!r}: it leaves TLS",
            hint="give the worker a base URL with https",
        )
    return target


def _checked(url: str, field: str) -> str:
    parts = urlsplit(url)
    try:
        bad = parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad or parts.username is not None or not url.isprintable():
        raise errors.InvalidRequest(
            f"cannot use {url[:200]!r} as {field}: not a URL like {DEFAULT_URL!r}", fields={"field": field}
        )
    return url


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def bearer(token: str | None) -> dict[str, str]:
    """Return the headers that carry a token. Raises `InvalidRequest` for what cannot be in a header."""
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise errors.InvalidRequest(
            "cannot use the token: it holds characters that no token has", fields={"field": "token"}
        )
    return {"Authorization": f"Bearer {token}"}


def given(**values: Any) -> dict[str, Any]:
    """Return what was given: the server has the defaults for the rest."""
    return {name: value for name, value in values.items() if value is not None}


def milliseconds(seconds: float | None) -> int | None:
    """Return a time limit as the API takes it. Raises `InvalidRequest` if it is no positive time."""
    if seconds is None:
        return None
    if not seconds > 0 or seconds == float("inf"):
        raise errors.InvalidRequest(
            f"cannot use {seconds!r} as timeout: give seconds above 0", fields={"field": "timeout"}
        )
    return max(1, round(seconds * 1000))


def command(value: object) -> str | list[str]:
    """Return a command as the API takes it: a string for the shell, or a list of arguments. Raises `InvalidRequest`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(part, str) for part in value):
        return list(value)
    raise errors.InvalidRequest(
        f"cannot run {value!r:.80}: a command is a string or a sequence of strings", fields={"field": "command"}
    )


def surroundings(
    env: Mapping[str, str] | None, cwd: str | os.PathLike[str] | None, user: str | None, timeout: float | None
) -> dict[str, Any]:
    """Return the part of a body that says how something starts."""
    limit = milliseconds(timeout)
    return given(env=env and dict(env), cwd=cwd and os.fspath(cwd), user=user, timeout_ms=limit)


def starting(
    words: object,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    user: str | None,
    timeout: float | None,
) -> dict[str, Any]:
    """Return the body that starts a command."""
    return {"command": command(words), **surroundings(env, cwd, user, timeout)}


def stdin(data: str | bytes | None) -> dict[str, str]:
    """Return the part of a body that carries input: nothing where there is none, or too much for a body."""
    if data is None or len(data) > STDIN_BYTES:
        return {}
    if isinstance(data, str):
        return {"stdin": data}
    return {"stdin_b64": base64.b64encode(data).decode()}


def path_query(path: str | bytes | os.PathLike[str], **more: Any) -> dict[str, str]:
    """Return the query that names a path in a sandbox: as text, or as base64 where it is not UTF-8."""
    raw = os.fspath(path)
    query: dict[str, str] = {}
    if isinstance(raw, bytes):
        raw = raw.decode(errors="surrogateescape")
    try:
        raw.encode()
        query["path"] = raw
    except UnicodeEncodeError:
        query["path_b64"] = base64.b64encode(raw.encode(errors="surrogateescape")).decode()
    for name, value in more.items():
        if value is not None:
            query[name] = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return query


def path_body(path: str | bytes | os.PathLike[str], user: str | None) -> dict[str, Any]:
    """Return the part of a body that names a path in a sandbox and whose rights count."""
    return dict(path_query(path, user=user))


def pair(source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str], **more: Any) -> dict[str, Any]:
    """Return the body that names two paths in a sandbox, as `from` and `to`."""
    body: dict[str, Any] = {}
    for name, path in (("from", source), ("to", target)):
        body |= {key.replace("path", name): value for key, value in path_query(path).items()}
    return body | given(**{name: value for name, value in more.items() if value is not False})


def octal(mode: int | None) -> str | None:
    """Return permission bits as the API takes them. Raises `InvalidRequest` for what are none."""
    if mode is None:
        return None
    if not 0 <= mode <= 0o7777:
        raise errors.InvalidRequest(f"cannot use {mode!r} as mode", fields={"field": "mode"})
    return f"{mode:04o}"


def port_number(port: int) -> int:
    """Return a port. Raises `InvalidRequest` for what is none."""
    if not 0 < port <= 65535:
        raise errors.InvalidRequest(f"cannot use {port!r} as port: give 1 to 65535", fields={"field": "port"})
    return port


def page_size(limit: int | None, have: int) -> int:
    """Return how many items to ask for at once when `limit` are wanted and `have` are there."""
    return MAX_PAGE if limit is None else min(MAX_PAGE, max(1, limit - have))


def query_string(query: Mapping[str, Any]) -> str:
    """Return `?a=b&c=d` with everything escaped, or nothing for nothing."""
    pairs = [
        f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in query.items() if value is not None
    ]
    return "?" + "&".join(pairs) if pairs else ""
