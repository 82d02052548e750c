"""The upgrade of an HTTP connection to plain bytes, as a port of a sandbox offers it. Pure, save for `secured`.

A tunnel is one request with `Upgrade: traforo-tcp` and one answer 101; what follows, in both directions, belongs to the
server inside the sandbox.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from traforo.sdk import answers, errors, requests, transports

PROTOCOL = "traforo-tcp"
END_OF_HEAD = b"\r\n\r\n"
ANSWER_SECONDS = 30.0
_HEAD_BYTES = 16 * 1024
_BODY_BYTES = 64 * 1024
_SWITCHING = 101


@dataclass(frozen=True, slots=True)
class Target:
    """Where the request goes."""

    host: str
    port: int
    tls: bool
    path: str
    authority: str


def target(url: str) -> Target:
    """Take a URL apart."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Target(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path or "/", parts.netloc)


def request(to: Target, headers: Mapping[str, str]) -> bytes:
    """Return the request for a tunnel."""
    lines = [f"GET {to.path} HTTP/1.1", f"Host: {to.authority}", "Connection: Upgrade", f"Upgrade: {PROTOCOL}"]
    lines += [f"User-Agent: {transports.HEADERS['User-Agent']}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def refused_bytes(head: bytes) -> int | None:
    """Return None for an answer that opened the tunnel, else how many bytes of body to read."""
    status, headers = _parsed(head)
    if status == _SWITCHING:
        return None
    length = headers.get("content-length", "0")
    return min(int(length) if length.isdecimal() else 0, _BODY_BYTES)


def refuse(head: bytes, body: bytes) -> NoReturn:
    """Raise the error of an answer that opened no tunnel."""
    status, headers = _parsed(head)
    raise answers.error(status, body, headers.get("x-request-id"))


def checked(data: bytes, before: bytes) -> bytes:
    """Return a piece of the head. Raises EOFError at its end, `BadAnswer` for one that has none."""
    if not data:
        raise EOFError("the connection ended before the answer did")
    if len(before) > _HEAD_BYTES:
        raise errors.BadAnswer("cannot open a tunnel: the answer has no end")
    return data


def unreachable(url: str, error: BaseException) -> errors.TraforoError:
    """Return the error of a connection that could not be made or broke before the answer."""
    reason = transports.system_reason(error) or str(error) or "no answer in time"
    return errors.ConnectionFailed(f"cannot reach {requests.origin(url)}: {reason}")


def secured(connection: socket.socket, host: str) -> socket.socket:
    """Put TLS on a connection. Raises OSError."""
    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)


def _parsed(head: bytes) -> tuple[int, Mapping[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise errors.BadAnswer(f"cannot open a tunnel: not an answer of HTTP: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
