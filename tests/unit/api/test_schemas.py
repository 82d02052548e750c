import inspect
import json

import pytest
from pydantic import BaseModel

from traforo.api import bodies, schemas
from traforo.domain import errors

MODELS = [
    model
    for _, model in inspect.getmembers(schemas, inspect.isclass)
    if issubclass(model, BaseModel) and model.__module__.startswith(schemas.__name__)
]
REQUESTS = [model for model in MODELS if issubclass(model, schemas.RequestModel) and model is not schemas.RequestModel]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_is_documented(model: type[BaseModel]) -> None:
    """Each says what it is: openapi.json is made from it."""
    assert model.__doc__


@pytest.mark.parametrize("model", REQUESTS, ids=lambda model: model.__name__)
def test_examples_are_accepted(model: type[BaseModel]) -> None:
    """What the documentation shows works."""
    for example in model.model_json_schema().get("examples", []):
        assert bodies.parse(json.dumps(example).encode(), model).model_dump(mode="json", exclude_unset=True) == example


@pytest.mark.parametrize(
    "model, body",
    [
        (schemas.ExecCreate, {"command": "x" * (128 * 1024)}),
        (schemas.ExecCreate, {"command": ["x"] * (65 * 1024)}),
        (schemas.ExecCreate, {"env": {"A": "x" * (24 * 1024)}}),
        (schemas.ExecCreate, {"cwd": "/" + "x" * 4095}),
        (schemas.CodeCreate, {"code": "ä" * (512 * 1024 + 1)}),
        (schemas.SandboxCreate, {"metadata": {"A": "x" * (24 * 1024)}}),
        (schemas.SandboxCreate, {"env": {"A": "x" * (12 * 1024)}, "metadata": {"B": "x" * (12 * 1024)}}),
        (schemas.DirectoryCreate, {"path": "/" + "ä" * 2048}),
    ],
    ids=str,
)
def test_what_is_too_large_is_told_apart(model: type[BaseModel], body: dict[str, object]) -> None:
    """Its code is `too_large`, with the limit in bytes: it is a matter of size and not of form."""
    with pytest.raises(errors.TooLarge) as caught:
        bodies.parse(json.dumps(body).encode(), model)
    assert caught.value.fields["limit"] > 0


@pytest.mark.parametrize(
    "body",
    [
        {"command": "x" * (128 * 1024 - 1)},
        {"command": ["x" * 4] * 1000},
        {"env": {"A": "x" * (24 * 1024 - 1)}},
        {"cwd": "/" + "x" * 4094},
    ],
    ids=str,
)
def test_limits_are_inclusive(body: dict[str, object]) -> None:
    """Exactly the limit is within it."""
    found = bodies.parse(json.dumps(body).encode(), schemas.ExecCreate)
    assert found.model_dump(exclude_unset=True) == body


@pytest.mark.parametrize(
    "body",
    [
        {"cpu": 0},
        {"cpu": True},
        {"cpu": "1"},
        {"memory_mib": 0},
        {"memory_mib": 1.5},
        {"ttl_seconds": 0},
        {"ttl_seconds": -1},
        {"pids": 0},
        {"image": ""},
        {"image": "a\0b"},
        {"name": ""},
        {"name": "x" * 129},
        {"metadata": {"a": 1}},
        {"disk_kind": "tape"},
        {"network": "none"},
        {"idle_seconds": 4.9},
        {"idle_seconds": 366 * 86400 + 1},
        {"on_expiry": "pause"},
        {"prepare": ["perl"]},
        {"prepare": ["python"] * 4},
    ],
    ids=str,
)
def test_create_that_cannot_be_meant(body: dict[str, object]) -> None:
    """A limit that is not supported is refused, never silently ignored."""
    with pytest.raises(errors.InvalidRequest):
        bodies.parse(json.dumps(body).encode(), schemas.SandboxCreate)


def test_whole_numbers_are_processors() -> None:
    """JSON knows one kind of number."""
    assert bodies.parse(b'{"cpu": 2, "ttl_seconds": 60}', schemas.SandboxCreate).cpu == 2.0


@pytest.mark.parametrize("signal", ["TERM", "SIGKILL", 9])
def test_signal_by_name_or_number(signal: object) -> None:
    """Both are usual; what they mean is decided where they are sent."""
    assert bodies.parse(json.dumps({"signal": signal}).encode(), schemas.SignalCreate).signal == signal


@pytest.mark.parametrize("signal", [True, None, 1.5, ["TERM"], "x" * 33])
def test_what_is_no_signal(signal: object) -> None:
    """Refused in words."""
    with pytest.raises(errors.InvalidRequest):
        bodies.parse(json.dumps({"signal": signal}).encode(), schemas.SignalCreate)
