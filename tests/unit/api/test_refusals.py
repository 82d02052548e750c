import inspect
import json
import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from traforo.api import bodies, refusals, schemas
from traforo.domain import errors

MODELS = [
    model
    for _, model in inspect.getmembers(schemas, inspect.isclass)
    if issubclass(model, schemas.RequestModel | schemas.QueryModel)
]
SECRET = "hunter2-and-more"
WRONG: list[Any] = [None, True, 0, -1, 1.5, 10**30, "", SECRET, SECRET * 10_000, "\0", [], [1], [SECRET] * 200]
WRONG += [{}, {"a": 1}, {"a": SECRET}, -1e300, float("inf"), float("nan")]


def refused(model: type[BaseModel], values: Any) -> list[tuple[errors.InvalidRequest, list[str]]]:
    """Return the error, and the kinds that pydantic gave what it found; nothing where the values are taken."""
    try:
        if issubclass(model, schemas.QueryModel):
            model.model_validate_strings({name: str(value) for name, value in values.items()})
        else:
            model.model_validate_json(json.dumps(values))
    except ValidationError as error:
        return [(refusals.invalid(error, "body", model), [one["type"] for one in error.errors()])]
    except errors.TraforoError:
        pass
    return []


def everything_wrong(model: type[BaseModel]) -> list[tuple[errors.InvalidRequest, list[str]]]:
    names = [*model.model_fields, "nothing_like_it"]
    bodies_ = [{name: value} for name in names for value in WRONG]
    whole = [] if issubclass(model, schemas.QueryModel) else WRONG
    return [found for values in [*bodies_, *whole] for found in refused(model, values)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_refusal_is_in_our_words(model: type[BaseModel]) -> None:
    """*cannot do this: because of that*, in lower case, of any field of any model; and each kind has its sentence."""
    for error, kinds in everything_wrong(model):
        assert set(kinds) <= {*refusals.SENTENCES, "json_invalid"}
        assert error.message.startswith("cannot read ")
        reason = error.message.partition(": ")[2]
        assert not reason[:1].isupper()
        assert "nput should" not in error.message
        assert not re.search(r"\{[a-z_]+\}", reason)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_no_refusal_repeats_what_was_sent(model: type[BaseModel]) -> None:
    """A value may be a secret, or large."""
    for error, _ in everything_wrong(model):
        told = json.dumps([error.message, error.hint, error.fields])
        assert SECRET not in told
        assert len(told) < 1000


@pytest.mark.parametrize(
    "body, message, field",
    [
        ({"timeout_ms": 0}, "cannot read 'timeout_ms' in the body: it is less than 1", "timeout_ms"),
        ({"tty": {"rows": 1.5}}, "cannot read 'tty.rows' in the body: it is not a whole number", "tty.rows"),
        ({"env": {"A": 1}}, "cannot read 'env.A' in the body: it is not text", "env.A"),
        ({"cwd": "here"}, "cannot read 'cwd' in the body: a path is absolute", "cwd"),
        ({"wait": 1}, "cannot read 'wait' in the body: it is neither true nor false", "wait"),
    ],
)
def test_field_is_named_by_its_path(body: Any, message: str, field: str) -> None:
    """A caller finds it, and a program as well."""
    [(error, _)] = refused(schemas.ExecCreate, body)
    assert (error.message, error.fields) == (message, {"field": field})


@pytest.mark.parametrize(
    "model, body, message",
    [
        (schemas.SandboxCreate, {"cpu": 0}, "it is not more than 0"),
        (schemas.SandboxCreate, {"idle_seconds": 4.5}, "it is less than 5"),
        (schemas.SandboxCreate, {"disk_kind": "ram"}, "it is not 'tmpfs' or 'disk'"),
        (schemas.SandboxCreate, {"prepare": ["lua"]}, "it is not 'python', 'node' or 'bash'"),
        (schemas.SandboxCreate, {"prepare": ["python"] * 4}, "it has more than 3 entries"),
        (schemas.SandboxCreate, {"name": "a" * 129}, "it has more than 128 characters"),
        (schemas.ExecCreate, {"tag": "a b"}, "it does not match '^[A-Za-z0-9._-]{1,64}$'"),
        (schemas.CodeCreate, {"runtime": "python"}, "it is required"),
        (schemas.SignalCreate, {"signal": "A" * 33}, "a signal has at most 32 characters"),
        (schemas.SignalCreate, {"signal": True}, "a signal is a name such as 'TERM' or a number"),
        (schemas.FileChange, {"path": "/a", "owner": 1.5}, "an owner is a name or a number"),
    ],
)
def test_limits_and_choices_are_told(model: type[BaseModel], body: Any, message: str) -> None:
    """What would have been right is in the sentence."""
    [(error, _)] = refused(model, body)
    assert error.message.partition(": ")[2] == message


@pytest.mark.parametrize(
    "name, hint", [("comand", "did you mean 'command'?"), ("colour", None), ("comand" * 100, None)]
)
def test_misspelt_field_has_a_hint(name: str, hint: str | None) -> None:
    """A name that looks like one of ours is most likely that one."""
    [(error, _)] = refused(schemas.ExecCreate, {name: "true"})
    assert error.hint == hint


@pytest.mark.parametrize(
    "body, hint",
    [
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"{'a': 1}", "key must be a string at line 1 column 2"),
        (b"hunter2", "expected value at line 1 column 1"),
    ],
)
def test_what_is_no_json(body: bytes, hint: str) -> None:
    """The place is told, and nothing of what stands there."""
    with pytest.raises(errors.InvalidRequest) as caught:
        bodies.parse(body, schemas.ExecCreate)
    assert (caught.value.message, caught.value.hint) == ("cannot read the body: it is not JSON", hint)
