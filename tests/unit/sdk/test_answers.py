import base64
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors as domain_errors
from traforo.sdk import answers, cells, errors, observations, places

SANDBOX = {
    "sandbox_id": "sbx_1",
    "state": "running",
    "created_at": "2026-01-02T03:04:05.678Z",
    "expires_at": "2026-01-02T03:34:05.678Z",
}


def told(code: str, **fields: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": "cannot do it", "request_id": "01R", **fields}}).encode()


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_each_code_has_its_class(code: str) -> None:
    """An error of the server is raised as the class of its code, with everything it says."""
    error = answers.error(418, told(code, hint="try", field="cpu"), None)
    assert type(error) is errors.BY_CODE[code]
    assert (error.code, error.status, error.request_id, error.hint) == (code, 418, "01R", "try")
    assert (str(error), error.fields) == ("cannot do it", {"field": "cpu"})


def test_every_code_of_the_server_is_known() -> None:
    """The SDK knows each error that the domain has; it imports nothing of it, so this test compares."""
    kinds = [domain_errors.TraforoError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.code for kind in kinds if kind.__module__ == domain_errors.__name__} == set(errors.BY_CODE)


def test_every_error_has_one_root_and_its_own_code() -> None:
    """One `except TraforoError` catches all, and a code names one class."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, errors.TraforoError) for kind in kinds)
    codes = [vars(kind)["code"] for kind in kinds]
    assert len(set(codes)) == len(codes)


def test_a_code_of_the_future_is_kept() -> None:
    """A newer server's error is raised as the root, with its code."""
    error = answers.error(400, told("brand_new"), "01X")
    assert type(error) is errors.TraforoError
    assert error.code == "brand_new"


@pytest.mark.parametrize(
    "status,body,kind",
    [
        (404, b"<html>not here</html>", errors.NotFound),
        (502, b"bad gateway", errors.BadAnswer),
        (401, b"", errors.Unauthenticated),
        (500, b'{"error": "text"}', errors.BadAnswer),
        (500, b'{"error": {"code": "x"}}', errors.BadAnswer),
        (500, b"[]", errors.BadAnswer),
    ],
)
def test_an_error_that_is_not_of_the_api(status: int, body: bytes, kind: type[errors.TraforoError]) -> None:
    """What a proxy answers is told by its status, with a hint."""
    error = answers.error(status, body, "01X")
    assert type(error) is kind
    assert (error.status, error.request_id, bool(error.hint)) == (status, "01X", True)


@pytest.mark.parametrize("body", [b"", b"text", b"[]", b"1", b"\xff"])
def test_a_document_is_an_object(body: bytes) -> None:
    """Anything else is told as a bad answer."""
    with pytest.raises(errors.BadAnswer):
        answers.document(body)


def test_a_sandbox_is_read_with_defaults() -> None:
    """What an answer leaves out gets an empty value; times are times."""
    info = answers.sandbox(SANDBOX | {"cpu": 0.5, "metadata": {"a": "b"}, "of_the_future": 1})
    assert (info.sandbox_id, info.cpu, info.metadata, info.name) == ("sbx_1", 0.5, {"a": "b"}, None)
    assert info.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.mark.parametrize("lost", sorted(SANDBOX))
def test_a_sandbox_without_what_matters_is_a_bad_answer(lost: str) -> None:
    """Never a KeyError."""
    with pytest.raises(errors.BadAnswer):
        answers.sandbox({name: value for name, value in SANDBOX.items() if name != lost})


def test_a_time_that_is_none_is_a_bad_answer() -> None:
    """A text that is no time is told."""
    with pytest.raises(errors.BadAnswer):
        answers.sandbox(SANDBOX | {"created_at": "yesterday"})


def test_a_list_knows_which_workers_are_missing() -> None:
    """A list that is not whole says so."""
    page, cursor = answers.sandboxes({"sandboxes": [SANDBOX], "next_cursor": "c", "missing_workers": ["w2"]})
    assert (len(page), page.missing_workers, cursor) == (1, ("w2",), "c")


@given(st.binary(max_size=100))
def test_frames_are_exact(data: bytes) -> None:
    """Any bytes of output arrive as they were."""
    frame = {"cursor": 4, "type": "stdout", "data": base64.b64encode(data).decode(), "ts": None}
    page = answers.frames({"frames": [frame], "next_cursor": 5, "dropped": 2})
    assert (page.frames[0].data, page.next_cursor, page.dropped) == (data, 5, 2)


def test_an_exit_frame_is_text_of_the_server() -> None:
    """Whether it was encoded as output is or not, its text is the same."""
    text = '{"end":"exited","exit_code":0}'
    for data in (text, base64.b64encode(text.encode()).decode()):
        page = answers.frames({"frames": [{"cursor": 0, "type": "exit", "data": data}], "next_cursor": 1})
        assert page.frames[0].data == text.encode()


def test_a_frame_that_is_not_base64_is_a_bad_answer() -> None:
    """Output is never taken for what it is not."""
    with pytest.raises(errors.BadAnswer):
        answers.frames({"frames": [{"cursor": 0, "type": "stdout", "data": "?"}], "next_cursor": 1})


def test_names_that_are_not_utf8_are_read_exactly() -> None:
    """The base64 beside a name wins, and gives Python's surrogate escapes."""
    raw = base64.b64encode(b"/a\xff").decode()
    entry = {"name": "a%FF", "name_b64": base64.b64encode(b"a\xff").decode(), "path": "/a%FF", "path_b64": raw}
    found, _ = answers.entries({"entries": [entry | {"type": "file"}]})
    assert (found[0].name, found[0].path) == ("a\udcff", "/a\udcff")


KEYS = [
    *("frames", "entries", "execs", "sandboxes", "error", "code", "message", "hint", "cursor", "type", "data"),
    *("exec_id", "status", "path", "exists", "terminals", "context_id", "runtime", "contexts", "results", "traceback"),
    *("port", "url", "ports", "matches", "changes", "next_cursor", "kind", "now", "series", "events", "entries"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_no_answer_breaks_the_reader(value: Any) -> None:
    """Whatever JSON a server sends, the caller meets a `TraforoError` or a record."""
    error = answers.error(500, json.dumps(value).encode(), None)
    assert isinstance(error, errors.TraforoError)
    readers: tuple[Callable[[Any], object], ...] = (
        *(answers.sandbox, answers.exec_result, answers.frames, answers.entries, answers.stat, answers.sandboxes),
        *(answers.terminals, cells.context, cells.contexts, cells.code_result, places.port_url, places.open_ports),
        *(places.matches, places.changes, places.signed_url, observations.metrics, observations.events),
        observations.logs,
    )
    for read in readers if isinstance(value, dict) else ():
        with contextlib.suppress(errors.TraforoError):
            read(value)
