"""What the WebSocket library's errors mean, and how an address becomes one of a WebSocket. No I/O."""

from __future__ import annotations

from typing import Any

from websockets import exceptions

from traforo.sdk import answers, errors, requests, transports

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0
MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message that is accepted."""
QUEUE = 16
"""Messages that wait for a slow reader before the server is made to wait."""
OPTIONS: dict[str, Any] = {
    "compression": None,
    "proxy": None,  # sandboxes are reached directly, as all requests are
    "open_timeout": OPEN_SECONDS,
    "close_timeout": CLOSE_SECONDS,
    "max_size": MESSAGE_BYTES,
    "max_queue": QUEUE,
    # A reader that takes its time reads no answers to pings either; the kernel's keep-alive finds dead peers instead.
    "ping_interval": None,
    "user_agent_header": transports.HEADERS["User-Agent"],
}
_NORMAL = 1000
_BY_CODE: dict[int, type[errors.TraforoError]] = {
    1003: errors.InvalidRequest,
    1007: errors.InvalidRequest,
    1008: errors.InvalidRequest,
    1009: errors.TooLarge,
    4400: errors.InvalidRequest,
    4401: errors.Unauthenticated,
    4403: errors.Forbidden,
    4404: errors.NotFound,
    4409: errors.Conflict,
    4410: errors.Lost,
    4413: errors.TooLarge,
    4422: errors.StartFailed,
    4429: errors.RateLimited,
    4500: errors.Internal,
    4503: errors.WorkerUnavailable,
}


class Unsupported(errors.BadAnswer):
    """No WebSocket there: an older server, or a proxy that knows none."""


def address(url: str) -> str:
    """Return the WebSocket form of an HTTP URL."""
    return "ws" + url.removeprefix("http")


def refused(error: Exception, url: str) -> errors.TraforoError:
    """Return what a failed attempt to connect means: `Unsupported` where there is no WebSocket to be had."""
    place = requests.origin(url)
    if isinstance(error, exceptions.InvalidStatus):
        answer = error.response
        told = answers.error(answer.status_code, bytes(answer.body or b""), answer.headers.get("x-request-id"))
        no_such_route = answers.is_missing_route(told)
        if not answers.is_own_error(bytes(answer.body or b"")) or no_such_route or told.code == "method_not_allowed":
            return Unsupported(f"no WebSocket at {place}: it answered {answer.status_code}", status=answer.status_code)
        return told
    if isinstance(error, OSError | EOFError | exceptions.InvalidMessage):  # TimeoutError is an OSError
        reason = transports.system_reason(error) or "no whole answer"
        return errors.ConnectionFailed(
            f"cannot reach {place}: {reason}",
            hint="is the server running (`traforo up`), and is TRAFORO_URL or `url` right?",
        )
    return Unsupported(f"no WebSocket at {place}: {error}")


def closed(error: exceptions.ConnectionClosed, url: str) -> errors.TraforoError | None:
    """Return what the end of a connection means; None for one that was meant."""
    code = error.rcvd.code if error.rcvd is not None else None
    if code == _NORMAL:
        return None
    reason = error.rcvd.reason if error.rcvd is not None else ""
    if code in _BY_CODE:
        return _BY_CODE[code](reason or f"the server closed the connection with {code}", fields={"close_code": code})
    more = f": {reason}" if reason else ""
    return errors.ConnectionFailed(f"the connection to {requests.origin(url)} broke{more}")


def gone(error: exceptions.ConnectionClosed, url: str) -> errors.TraforoError:
    """Return what it means that something cannot be sent any more."""
    return closed(error, url) or errors.ConnectionFailed(f"the connection to {requests.origin(url)} is closed")
