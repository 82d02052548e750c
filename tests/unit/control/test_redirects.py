from urllib import parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.control import redirects
from traforo.domain import errors, ids

ID = "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789"
VISIBLE = st.binary().map(lambda data: bytes(byte for byte in data if 0x21 <= byte < 0x7F))


def scope(raw_path: bytes, query: bytes = b"") -> dict[str, object]:
    return {"raw_path": raw_path, "path": parse.unquote(raw_path.decode("latin-1")), "query_string": query}


def test_clients_of_websockets_are_sent_to_one() -> None:
    """They know no other scheme."""
    assert redirects.location("https://w:1", b"/sandboxes/x", scheme="ws") == "wss://w:1/sandboxes/x"
    assert redirects.location("http://w:1", b"/sandboxes/x", scheme="ws") == "ws://w:1/sandboxes/x"


@given(rest=VISIBLE, query=VISIBLE)
def test_target_goes_on_byte_for_byte(rest: bytes, query: bytes) -> None:
    """Whatever may stand in a URL comes out as it went in, behind the worker's base URL and nothing else."""
    raw = redirects.PREFIX + ID.encode() + b"/" + rest.replace(b"?", b"")
    found = redirects.target(scope(raw, query))
    assert found == (raw + b"?" + query if query else raw)
    assert redirects.sandbox_id(found) == ids.parse_sandbox_id(ID)
    assert redirects.location("http://w:1", found) == "http://w:1" + found.decode()


@given(rest=VISIBLE)
def test_host_of_a_location_is_the_workers(rest: bytes) -> None:
    """No request target makes a location lead to another host, however it is read."""
    raw = redirects.PREFIX + rest.replace(b"?", b"")
    assert parse.urlsplit(redirects.location("http://w:1", redirects.target(scope(raw)))).netloc == "w:1"


@pytest.mark.parametrize("byte", [b"\r", b"\n", b" ", b"\t", b"\0", b"\x7f", b"\x80", b"\xff"])
@pytest.mark.parametrize("where", ["path", "query"])
def test_bytes_that_must_be_escaped_are_refused(byte: bytes, where: str) -> None:
    """A target that could end a header line or mean different things to different readers goes nowhere."""
    raw = redirects.PREFIX + ID.encode()
    made = scope(raw + b"/a" + byte, b"") if where == "path" else scope(raw, b"a=" + byte)
    with pytest.raises(errors.InvalidRequest) as caught:
        redirects.target(made)
    assert caught.value.fields == {"field": "path"}


def test_escaped_bytes_are_left_alone() -> None:
    raw = redirects.PREFIX + ID.encode() + b"/files%0d%0aSet-Cookie:%20a%2F..%2f"
    assert redirects.target(scope(raw, b"path=%00%0A")) == raw + b"?path=%00%0A"


def test_length_is_limited() -> None:
    raw = redirects.PREFIX + b"a" * (redirects.MAX_TARGET_BYTES - len(redirects.PREFIX))
    assert len(redirects.target(scope(raw))) == redirects.MAX_TARGET_BYTES
    with pytest.raises(errors.TooLarge) as caught:
        redirects.target(scope(raw, b"a"))
    assert caught.value.fields == {"limit": redirects.MAX_TARGET_BYTES}


def test_server_without_raw_path() -> None:
    """The path is escaped anew where a server gives only the decoded one."""
    assert redirects.target({"path": "/sandboxes/a b", "query_string": b""}) == b"/sandboxes/a%20b"


@pytest.mark.parametrize(
    "spelling", [ID, ID.lower().replace("_01k6", "_01K6"), str(ids.parse_sandbox_id(ID).dns), ID.replace("_", "%5F")]
)
@pytest.mark.parametrize("rest", ["", "/", "/files?path=/a", "?x=1", "//a", "/..%2f.."])
def test_both_spellings_route(spelling: str, rest: str) -> None:
    """An id routes in either spelling, escaped or not, whatever follows."""
    assert redirects.sandbox_id(b"/sandboxes/" + (spelling + rest).encode()) == ids.parse_sandbox_id(ID)


@pytest.mark.parametrize(
    "segment", ["", "x", ID + "x", ID[:-1], ID + "%2Ffiles", ID + "%00", "%ff" + ID, "a" * 300, ".."]
)
def test_malformed_ids_are_refused(segment: str) -> None:
    with pytest.raises(errors.MalformedId):
        redirects.sandbox_id(b"/sandboxes/" + segment.encode() + b"/files")


@pytest.mark.parametrize("raw", ["/sandboxes", "/sandboxes%2F" + ID, "//evil/sandboxes/" + ID, "/Sandboxes/" + ID, "*"])
def test_what_is_no_sandbox_is_not_found(raw: str) -> None:
    with pytest.raises(errors.NotFound):
        redirects.sandbox_id(raw.encode())
