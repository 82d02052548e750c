import dataclasses
import json

import pytest

from traforo.api import answers, schemas
from traforo.domain import states


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    state: states.SandboxState
    parts: tuple[int, ...]


@pytest.mark.parametrize(
    "content, expected",
    [
        ({"a": [1, None, "ä"]}, {"a": [1, None, "ä"]}),
        (Record(states.SandboxState.RUNNING, (1, 2)), {"state": "running", "parts": [1, 2]}),
        (schemas.Health(status="ok"), {"status": "ok"}),
        ([], []),
    ],
)
def test_content_is_encoded_once(content: object, expected: object) -> None:
    """Dicts, records and models become JSON, without an intermediate form."""
    response = answers.json(content, 201, {"x-a": "b"})
    assert json.loads(bytes(response.body)) == expected
    assert (response.status_code, response.headers["content-type"], response.headers["x-a"]) == (
        201,
        "application/json",
        "b",
    )


def test_nothing_has_no_body() -> None:
    """204 has neither content nor a type for it."""
    response = answers.nothing()
    assert (response.status_code, response.body, "content-type" in response.headers) == (204, b"", False)


def test_redirect_keeps_method_and_body_and_is_not_cached() -> None:
    """307, to be followed anew each time: the next create may go elsewhere."""
    response = answers.redirect("http://w:1/sandboxes?placement=x", {"traceparent": "t"})
    assert response.status_code == 307
    assert response.headers["location"] == "http://w:1/sandboxes?placement=x"
    assert (response.headers["cache-control"], response.headers["traceparent"]) == ("no-store", "t")
