import base64
import os
from pathlib import PurePosixPath
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.sdk import errors, requests

ID = "sbx_0123456789abcdef0123456789abcdef_01HZZZZZZZZZZZZZZZZZZZZZZZ"


@pytest.mark.parametrize(
    "chosen,environ,expected",
    [
        ("http://a:1/", {"TRAFORO_URL": "http://b"}, "http://a:1"),
        (None, {"TRAFORO_URL": "https://b/traforo/"}, "https://b/traforo"),
        (None, {"TRAFORO_URL": ""}, "http://127.0.0.1:8080"),
        (None, {}, "http://127.0.0.1:8080"),
    ],
)
def test_base_url_prefers_what_was_given(chosen: str | None, environ: dict[str, str], expected: str) -> None:
    """The argument wins over the variable, the variable over the default; no slash at the end."""
    assert expected == requests.base_url(chosen, environ)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://a", "http://", "http://a:b", "http://u:p@a", "http://a\n", "/x"]
)
def test_base_url_refuses_what_is_none(url: str) -> None:
    """A URL that cannot be one of a server is refused before anything is sent."""
    with pytest.raises(errors.InvalidRequest) as caught:
        requests.base_url(url, {})
    assert caught.value.fields == {"field": "url"}


@pytest.mark.parametrize("connect_url", ["http://w:81", "http://w:81/", f"http://w:81/sandboxes/{ID}"])
def test_sandbox_place_takes_either_form(connect_url: str) -> None:
    """A connect URL may name the worker or the sandbox itself."""
    place = requests.sandbox_place(connect_url, ID, "tok")
    assert (f"http://w:81/sandboxes/{ID}", "tok") == (place.url, place.token)


@pytest.mark.parametrize("text", ["", "a/b", "..", "a?b", "sbx_%2e", "x" * 129, "é"])
def test_an_id_cannot_lead_elsewhere(text: str) -> None:
    """What is put into a URL as an id has no character that means something there."""
    with pytest.raises(errors.MalformedId):
        requests.checked_id(text)


@pytest.mark.parametrize(
    "one,other,same",
    [
        ("http://a", "http://a:80/x", True),
        ("https://a", "https://a:443", True),
        ("http://A/x", "http://a/y", True),
        ("http://a", "https://a", False),
        ("http://a", "http://a:81", False),
        ("http://a", "http://b", False),
    ],
)
def test_same_origin(one: str, other: str, same: bool) -> None:
    """Scheme, host and port make an origin, with the default ports filled in."""
    assert same == requests.same_origin(one, other)


def test_a_redirect_is_resolved_against_its_url() -> None:
    """A location may be relative."""
    assert requests.redirected("http://a/sandboxes", "/x?y=1") == "http://a/x?y=1"
    assert requests.redirected("http://a/sandboxes", "https://b/x") == "https://b/x"


@pytest.mark.parametrize(
    "url,location",
    [
        ("http://a", None),
        ("http://a", ""),
        ("http://a", "file:///etc/passwd"),
        ("http://a", "http://u:p@b/"),
        ("https://a", "http://a/"),
    ],
)
def test_a_redirect_to_a_bad_place_is_refused(url: str, location: str | None) -> None:
    """No location, none of HTTP, and none that leaves TLS."""
    with pytest.raises(errors.BadAnswer):
        requests.redirected(url, location)


def test_a_token_becomes_a_header() -> None:
    """No token, no header."""
    assert requests.bearer("abc.def") == {"Authorization": "Bearer abc.def"}
    assert requests.bearer(None) == requests.bearer("") == {}


@pytest.mark.parametrize("token", ["a b", "a\r\nX-Other: 1", "é", "a\n"])
def test_a_token_cannot_add_headers(token: str) -> None:
    """A token with other characters than tokens have is refused."""
    with pytest.raises(errors.InvalidRequest):
        requests.bearer(token)


@pytest.mark.parametrize("seconds,expected", [(None, None), (1.5, 1500), (0.0001, 1), (3600, 3_600_000)])
def test_milliseconds(seconds: float | None, expected: int | None) -> None:
    """Seconds become whole milliseconds, at least one."""
    assert expected == requests.milliseconds(seconds)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_milliseconds_refuse_what_is_no_limit(seconds: float) -> None:
    """A limit is a positive, finite time."""
    with pytest.raises(errors.InvalidRequest):
        requests.milliseconds(seconds)


def test_a_command_is_text_or_a_list() -> None:
    """Text goes to the shell as it is; a sequence of text becomes a list."""
    assert requests.command("a | b") == "a | b"
    assert requests.command(("a", "b c")) == ["a", "b c"]


@pytest.mark.parametrize("value", [b"ls", [b"ls"], [], ["a", 1], None, 7])
def test_a_command_is_nothing_else(value: object) -> None:
    """Bytes, numbers and nothing at all are told at once."""
    with pytest.raises(errors.InvalidRequest):
        requests.command(value)


def test_path_query_spells_values_as_the_api_does() -> None:
    """Booleans in lower case, what is None left out, any kind of path taken."""
    query = requests.path_query(PurePosixPath("/a b"), recursive=True, force=False, user=None, limit=3)
    assert query == {"path": "/a b", "recursive": "true", "force": "false", "limit": "3"}


@given(st.binary(min_size=1, max_size=40))
def test_any_path_of_bytes_can_be_named(raw: bytes) -> None:
    """Bytes and their surrogate-escaped text name the same path: as text when it is UTF-8, else exactly, as base64."""
    query = requests.path_query(raw)
    assert query == requests.path_query(os.fsdecode(raw))
    named = query["path"].encode() if "path" in query else base64.b64decode(query["path_b64"])
    assert raw == named


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=4))
def test_a_query_string_can_be_read_back(query: dict[str, str]) -> None:
    """Whatever stands in names and values arrives, and nothing besides."""
    text = requests.query_string(query)
    assert parse_qs(text.removeprefix("?"), keep_blank_values=True) == {name: [value] for name, value in query.items()}
    assert text.isascii()


@pytest.mark.parametrize("limit,have,expected", [(None, 5, 1000), (7, 5, 2), (5000, 0, 1000), (3, 3, 1)])
def test_page_size(limit: int | None, have: int, expected: int) -> None:
    """A page is what is still wanted, within what the API gives."""
    assert expected == requests.page_size(limit, have)
