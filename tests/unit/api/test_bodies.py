import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from traforo.api import bodies, schemas
from traforo.domain import errors

Message = dict[str, Any]


def receiver(messages: list[Message]) -> Callable[[], Awaitable[Message]]:
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


def request(*pieces: bytes, headers: dict[str, str] | None = None, query: str = "", end: bool = True) -> Request:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if messages and end:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw, "query_string": query.encode()}
    return Request(scope, receiver(messages))


async def test_body_in_one_piece() -> None:
    """The common case."""
    assert await bodies.read(request(b"abc"), 3) == b"abc"


async def test_body_in_many_pieces() -> None:
    """Pieces are put together in order."""
    assert await bodies.read(request(b"a", b"", b"bc"), 3) == b"abc"


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"a",) * 4])
async def test_body_over_the_limit(pieces: tuple[bytes, ...]) -> None:
    """However it comes, one byte too many is too many; the error names the limit."""
    with pytest.raises(errors.TooLarge) as caught:
        await bodies.read(request(*pieces), 3)
    assert caught.value.fields == {"limit": 3}


async def test_body_that_says_it_is_too_long_is_not_read() -> None:
    """The header is enough."""
    with pytest.raises(errors.TooLarge):
        await bodies.read(request(headers={"content-length": "4"}), 3)


@pytest.mark.parametrize("pieces", [(), (b"a", b"b")])
async def test_caller_who_leaves(pieces: tuple[bytes, ...]) -> None:
    """Half a body is no body."""
    with pytest.raises(bodies.Disconnected):
        await bodies.read(request(*pieces, end=False))
    with pytest.raises(bodies.Disconnected):
        [piece async for piece in bodies.stream(request(*pieces, end=False))]


async def test_stream_gives_pieces_as_they_come() -> None:
    """Nothing is collected, and no empty piece is given out."""
    assert [piece async for piece in bodies.stream(request(b"a", b"", b"bc"))] == [b"a", b"bc"]


async def test_stream_within_a_limit() -> None:
    """What fits was given out before the error."""
    pieces = bodies.stream(request(b"ab", b"cd"), 3)
    assert await anext(pieces) == b"ab"
    with pytest.raises(errors.TooLarge):
        await anext(pieces)


async def test_json_becomes_a_model() -> None:
    """Defaults are filled in."""
    found = await bodies.read_json(request(b'{"command": ["ls", "-l"]}'), schemas.ExecCreate)
    assert (found.command, found.wait, found.timeout_ms) == (["ls", "-l"], False, None)


async def test_no_body_is_an_empty_object() -> None:
    """`POST /sandboxes` without a body makes a sandbox of defaults."""
    assert (await bodies.read_json(request(b""), schemas.SandboxCreate)).image == "host"


@pytest.mark.parametrize(
    "body, field, words",
    [
        (b"{", None, "it is not JSON"),
        (b"\xff", None, "it is not JSON"),
        (b'{"command": "\\ud800"}', None, "it is not JSON"),
        (b"[" * 10_000, None, "it is not JSON"),
        (b"[]", None, "the body"),
        (b"1", None, "the body"),
        (b'{"comand": "x"}', "comand", "no such field"),
        (b'{"command": 1}', "command", "text for /bin/sh"),
        (b'{"command": []}', "command", "text for /bin/sh"),
        (b'{"command": ["a", 1]}', "command", "text for /bin/sh"),
        (b'{"command": "a\\u0000"}', "command", "NUL"),
        (b'{"wait": 1}', "wait", "neither true nor false"),
        (b'{"timeout_ms": 0}', "timeout_ms", "less than 1"),
        (b'{"timeout_ms": "5"}', "timeout_ms", "not a whole number"),
        (b'{"timeout_ms": 1e400}', "timeout_ms", ""),
        (b'{"cwd": "relative"}', "cwd", "absolute"),
        (b'{"cwd": "/a\\u0000"}', "cwd", "NUL"),
        (b'{"user": ""}', "user", "empty"),
        (b'{"env": {"A=B": "x"}}', "env", "without '='"),
        (b'{"env": {"": "x"}}', "env", "without '='"),
        (b'{"env": {"A": "x\\u0000"}}', "env", "NUL"),
        (b'{"env": {"A": 1}}', "env.A", "not text"),
        (b'{"env": []}', "env", "not an object"),
    ],
)
def test_body_that_contradicts_the_api(body: bytes, field: str | None, words: str) -> None:
    """The first thing that is wrong, by name, in words."""
    with pytest.raises(errors.InvalidRequest) as caught:
        bodies.parse(body, schemas.ExecCreate)
    assert caught.value.fields.get("field") == field
    assert words in caught.value.message


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """There is no third way."""
    try:
        bodies.parse(body, schemas.SandboxCreate)
    except errors.InvalidRequest as error:
        json.dumps(error.fields)


def test_long_field_names_are_not_repeated_in_full() -> None:
    """An answer does not grow with the nonsense in a request."""
    with pytest.raises(errors.InvalidRequest) as caught:
        bodies.parse(b'{"%s": 1}' % (b"x" * 10_000), schemas.ExecCreate)
    assert len(caught.value.message) < 1000


def test_query_becomes_a_model() -> None:
    """Text is read as numbers and words; what nobody knows is ignored."""
    found = bodies.query(request(query="cursor=5&wait=1.5&encoding=base64&utm=x"), schemas.FrameQuery)
    assert (found.cursor, found.wait, found.limit, found.encoding) == (5, 1.5, 1000, "base64")
    assert bodies.query(request(), schemas.FrameQuery) == schemas.FrameQuery()


@pytest.mark.parametrize(
    "text, expected", [("true", True), ("1", True), ("false", False), ("0", False), ("True", True)]
)
def test_query_spells_yes_and_no(text: str, expected: bool) -> None:
    """The usual spellings."""
    assert bodies.query(request(query=f"path=/a&force={text}"), schemas.FileDeleteQuery).force is expected


@pytest.mark.parametrize(
    "query, field",
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("cursor=-1", "cursor"),
        ("cursor=1&cursor=2", "cursor"),
        ("wait=61", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("encoding=latin1", "encoding"),
        ("cursor=" + "9" * 5000, "cursor"),
    ],
)
def test_query_that_contradicts_the_api(query: str, field: str) -> None:
    """The parameter is named."""
    with pytest.raises(errors.InvalidRequest, match="cannot read") as caught:
        bodies.query(request(query=query), schemas.FrameQuery)
    assert caught.value.fields == {"field": field}
    assert len(caught.value.message) < 1000


def test_cursor_of_a_listing_has_few_digits() -> None:
    """It is a number of entries; one that no number can be made of is refused where it comes in."""
    assert bodies.query(request(query="path=/a&cursor=1000"), schemas.FileListQuery).cursor == "1000"
    for cursor in ("9" * 5000, "", "-1", "x", "%D9%A1"):
        with pytest.raises(errors.InvalidRequest) as caught:
            bodies.query(request(query=f"path=/a&cursor={cursor}"), schemas.FileListQuery)
        assert caught.value.fields == {"field": "cursor"}


def test_missing_parameter() -> None:
    """A renewal says for how long."""
    with pytest.raises(errors.InvalidRequest, match="required") as caught:
        bodies.query(request(), schemas.LeaseQuery)
    assert caught.value.fields == {"field": "ttl_seconds"}
