import httpx2
import pytest

from traforo.sdk import errors, transports


@pytest.mark.parametrize(
    "error,kind",
    [
        (httpx2.ConnectError("x"), errors.ConnectionFailed),
        (httpx2.ConnectTimeout("x"), errors.ConnectionFailed),
        (httpx2.ReadTimeout("x"), errors.RequestTimedOut),
        (httpx2.RemoteProtocolError("x"), errors.ConnectionFailed),
        (httpx2.ReadError("x"), errors.ConnectionFailed),
        (httpx2.InvalidURL("x"), errors.InvalidRequest),
        (httpx2.DecodingError("x"), errors.InvalidRequest),
    ],
)
def test_errors_of_the_library_are_translated(error: httpx2.HTTPError, kind: type[errors.TraforoError]) -> None:
    """No caller has to know which HTTP library is used."""
    translated = transports.translated(error, "GET", "http://host:1/path?placement=secret")
    assert type(translated) is kind
    assert "http://host:1" in translated.message
    assert "secret" not in translated.message


def test_the_reason_is_that_of_the_system() -> None:
    """However deep it is wrapped."""
    error = httpx2.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("wrapped")
    error.__cause__.__context__ = ConnectionRefusedError(111, "Connection refused")
    assert "connection refused" in transports.translated(error, "GET", "http://h").message


def test_a_connection_that_is_not_made_in_time_says_so() -> None:
    """There is no word of the system for it."""
    assert "within 5 s" in transports.translated(httpx2.ConnectTimeout(""), "GET", "http://h").message


def test_waiting_for_ever_still_connects_in_time() -> None:
    """Only the answer may take for ever."""
    limits = transports.timeouts(None)
    assert (limits.connect, limits.read) == (5.0, None)


def test_a_short_wait_includes_the_connection() -> None:
    """Who waits for a second does not wait for five."""
    limits = transports.timeouts(1.0)
    assert (limits.connect, limits.read) == (1.0, 1.0)
