import json

import pytest
from websockets import exceptions, frames
from websockets.datastructures import Headers
from websockets.http11 import Response

from traforo.sdk import errors, handshakes

URL = "http://worker:81/sandboxes/s/exec/e/ws"


def answer(status: int, code: str | None, **fields: str) -> exceptions.InvalidStatus:
    body = b"<html>" if code is None else json.dumps({"error": {"code": code, "message": "no", **fields}}).encode()
    return exceptions.InvalidStatus(Response(status, "", Headers({"X-Request-Id": "r"}), body))


@pytest.mark.parametrize(
    "refusal,kind",
    [
        (answer(404, "not_found", kind="exec"), errors.NotFound),
        (answer(404, "not_found", kind="route"), handshakes.Unsupported),
        (answer(401, "unauthenticated"), errors.Unauthenticated),
        (answer(403, "forbidden"), errors.Forbidden),
        (answer(404, "not_found"), handshakes.Unsupported),
        (answer(405, "method_not_allowed"), handshakes.Unsupported),
        (answer(404, None), handshakes.Unsupported),
        (answer(200, None), handshakes.Unsupported),
        (exceptions.InvalidUpgrade("Upgrade", None), handshakes.Unsupported),
        (ConnectionRefusedError(111, "refused"), errors.ConnectionFailed),
        (TimeoutError(), errors.ConnectionFailed),
        (EOFError(), errors.ConnectionFailed),
        (exceptions.InvalidMessage("did not receive a valid HTTP response"), errors.ConnectionFailed),
    ],
)
def test_a_refusal_is_an_error_of_the_sdk(refusal: Exception, kind: type[errors.TraforoError]) -> None:
    """What the API says is told; where there is no WebSocket to be had, another way may be tried."""
    assert type(handshakes.refused(refusal, URL)) is kind


@pytest.mark.parametrize(
    "code,kind",
    [
        (1008, errors.InvalidRequest),
        (4401, errors.Unauthenticated),
        (4403, errors.Forbidden),
        (4404, errors.NotFound),
        (4409, errors.Conflict),
        (1001, errors.ConnectionFailed),
        (1011, errors.ConnectionFailed),
        (None, errors.ConnectionFailed),
    ],
)
def test_the_end_of_a_connection_is_told(code: int | None, kind: type[errors.TraforoError]) -> None:
    """By its code; one that broke can be made anew."""
    received = None if code is None else frames.Close(code, "why")
    problem = handshakes.closed(exceptions.ConnectionClosedError(received, None), URL)
    assert type(problem) is kind


def test_a_normal_end_is_no_error() -> None:
    """Except for somebody who still wants to send."""
    error = exceptions.ConnectionClosedOK(frames.Close(1000, ""), None)
    assert handshakes.closed(error, URL) is None
    assert type(handshakes.gone(error, URL)) is errors.ConnectionFailed


def test_addresses() -> None:
    """The same place, in the words of WebSockets."""
    assert handshakes.address("http://a/b") == "ws://a/b"
    assert handshakes.address("https://a/b") == "wss://a/b"
