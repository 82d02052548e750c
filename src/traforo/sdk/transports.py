"""What both clients know of the HTTP library: how sockets are set up, how long to wait, what its errors mean.

Environment variables for proxies are not used: sandboxes are reached directly, on loopback most of all. A caller behind
a proxy hands in an HTTP client of their own.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

import httpcore2  # noqa: F401 - httpx2 itself loads it with the first request, when an event loop would have to wait
import httpx2

from traforo.sdk import errors, requests

CONNECT_SECONDS = 5.0
WAIT_MARGIN = 30.0
"""Seconds that an answer may come later than the time limit it waits for."""
LIMITS = httpx2.Limits(
    max_connections=None,  # each waiting exec holds one
    max_keepalive_connections=64,
    keepalive_expiry=4.0,  # below the 5 s after which common servers hang up, so that few requests meet a closing one
)
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A wait for a command may be silent for hours; these notice within a minute that the other side is gone.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]
HEADERS: Mapping[str, str] = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "traforo"}


def timeouts(answer: float | None) -> httpx2.Timeout:
    """Return time limits for a request whose answer may take this many seconds; None waits for ever."""
    # What waits for ever may also be sent slowly: input that its command is in no hurry to read.
    connect = CONNECT_SECONDS if answer is None else min(CONNECT_SECONDS, answer)
    return httpx2.Timeout(connect=connect, read=answer, write=None if answer is None else 60.0, pool=None)


def translated(error: httpx2.HTTPError | httpx2.InvalidURL, method: str, url: str) -> errors.TraforoError:
    """Return an error of the HTTP library in the words of the SDK."""
    place = requests.origin(url)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return errors.ConnectionFailed(
            f"cannot reach {place}: {_reason(error)}",
            hint="is the server running (`traforo up`), and is TRAFORO_URL or `url` right?",
            fields={"sent": False},
        )
    if isinstance(error, httpx2.TimeoutException):
        return errors.RequestTimedOut(f"no answer from {place} to {method} in time")
    if isinstance(error, httpx2.TransportError):
        return errors.ConnectionFailed(f"the connection to {place} broke during {method}: {_reason(error)}")
    return errors.InvalidRequest(f"cannot send {method} to {place}: {error}")


def system_reason(error: BaseException) -> str | None:
    """Return what the system said below an error, in words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: Exception) -> str:
    if (said := system_reason(error)) is not None:
        return said
    if isinstance(error, httpx2.TimeoutException):
        return f"no connection within {CONNECT_SECONDS:g} s"
    return str(error) or type(error).__name__
