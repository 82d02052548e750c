import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from traforo.api import problems
from traforo.domain import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.TraforoError)]


def decoded(error: errors.TraforoError) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(problems.body(error, "r1"))["error"]
    return found


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind is not errors.TraforoError], ids=lambda kind: kind.__name__
)
def test_every_error_has_a_status(kind: type[errors.TraforoError]) -> None:
    """A new error is given its status on purpose."""
    assert kind in problems.STATUS
    assert problems.answer(kind("why"), "r1").status_code == problems.STATUS[kind]


def test_codes_are_distinct() -> None:
    """A code names one error, and has one status."""
    codes = [kind.code for kind in problems.STATUS]
    assert len(codes) == len(set(codes))


def test_subclass_has_the_status_of_its_parent() -> None:
    """A more exact error of some room needs no entry."""

    class NoFile(errors.NotFound):
        pass

    assert problems.status(NoFile("gone")) == 404


def test_body_has_code_message_request_id_hint_and_fields() -> None:
    """One form for all errors."""
    error = errors.NotFound("no image 'x'", hint="pull it", kind="image", id="x")
    assert decoded(error) == {
        "code": "not_found",
        "message": "no image 'x'",
        "request_id": "r1",
        "hint": "pull it",
        "kind": "image",
        "id": "x",
    }


def test_field_cannot_hide_code_or_request_id() -> None:
    """What identifies an error is not overwritten by what describes it."""
    error = errors.Conflict("busy")
    error.fields.update(code="x", request_id="y", message="z")
    assert decoded(error) == {"code": "conflict", "message": "busy", "request_id": "r1"}


@given(
    st.text(st.characters()), st.recursive(st.none() | st.text(st.characters()) | st.binary() | st.floats(), st.lists)
)
def test_any_text_can_be_told(text: str, value: Any) -> None:
    """Names from a sandbox may hold stray bytes as surrogates: they reach the caller, and never break the answer."""
    found = decoded(errors.NotFound(f"no file {text}", path=value))
    assert found["code"] == "not_found"
    assert found["message"] == f"no file {text}"


def test_stray_bytes_survive() -> None:
    """A surrogate escape is told as JSON's escape of it."""
    assert decoded(errors.NotFound("no file", path="a\udcffb"))["path"] == "a\udcffb"


def test_defect_tells_nothing_of_itself() -> None:
    """Neither text nor type of an unexpected exception leaves the process."""
    found = problems.translated(KeyError("/etc/secret"))
    assert isinstance(found, errors.Internal)
    assert "secret" not in json.dumps(decoded(found))
    assert "KeyError" not in json.dumps(decoded(found))


@pytest.mark.parametrize(
    "error, code, status",
    [
        (HTTPException(404), "not_found", 404),
        (HTTPException(405, headers={"Allow": "GET"}), "method_not_allowed", 405),
        (HTTPException(400, "bad cookie"), "invalid_request", 400),
        (HTTPException(418), "invalid_request", 400),
        (HTTPException(500), "internal", 500),
        (HTTPException(503, "secret"), "internal", 500),
    ],
)
def test_errors_of_the_framework_become_ours(error: HTTPException, code: str, status: int) -> None:
    """A caller never meets the framework's own form."""
    found = problems.translated(error)
    assert (found.code, problems.status(found)) == (code, status)
    assert "secret" not in found.message


@pytest.mark.parametrize(
    "error, name, value",
    [
        (errors.Unauthenticated("who?"), "www-authenticate", "Bearer"),
        (errors.RateLimited("slow"), "retry-after", "1"),
        (errors.NoCapacity("full"), "retry-after", "1"),
        (problems.MethodNotAllowed("no", allow="GET, PUT"), "allow", "GET, PUT"),
    ],
)
def test_headers_that_go_with_an_error(error: errors.TraforoError, name: str, value: str) -> None:
    """HTTP asks for them, and clients use them."""
    assert problems.answer(error, "r1").headers[name] == value
