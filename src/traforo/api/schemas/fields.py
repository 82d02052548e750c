"""What the models of the API are made of: their three kinds, the limits of values, and the types that check them.

A value of the wrong form is refused with ValueError, which pydantic reports with its place; one that is only too large
is `TooLarge`, which has a status of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from traforo.domain import errors

MAX_ENV_BYTES = 24 * 1024
"""Most bytes of names and values of `env` and `metadata` of a sandbox together, and of an exec's `env`."""
MAX_COMMAND_BYTES = 128 * 1024
"""Most bytes of a command with all its arguments."""
MAX_CODE_BYTES = 1024 * 1024
"""Most bytes of `code`."""
MAX_PATH_BYTES = 4095
"""Most bytes of a path."""
MAX_TIMEOUT_MS = 7 * 24 * 3600 * 1000
"""Longest deadline of an exec: seven days."""
MAX_SIGNAL = 32
"""Most characters of the name of a signal."""
MAX_PAGE = 1000
"""Most entries of a page."""

SANDBOX_ID = "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789"
DNS_ID = "ijnksdqht6rsnnsjj6asvuj6pe01k6z8q4t3v7wxyz0123456789"
EXEC_ID = "exec_01K6Z8Q4T3V7WXYZ0123456789"
CREATED_AT = "2026-11-21T12:00:00.000Z"
EXPIRES_AT = "2026-11-21T12:30:00.000Z"


def no_nul(text: str) -> str:
    """Refuse what no C string can hold."""
    if "\0" in text:
        raise ValueError("a NUL character cannot be part of it")
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("a path is absolute")
    if len(text.encode()) > MAX_PATH_BYTES:
        raise errors.TooLarge(
            f"cannot use a path of more than {MAX_PATH_BYTES} bytes", limit=MAX_PATH_BYTES, field="path"
        )
    return no_nul(text)


def _environment(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError("a variable has a name without '=', and no NUL character in name or value")
    check_size(env)
    return env


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    check_size(metadata)
    return metadata


def _command(value: object) -> object:
    """Refuse what is neither text nor a list of texts in one sentence; a union would tell of each."""
    items = value if isinstance(value, list) else [value]
    parts = [item for item in items if isinstance(item, str)]
    if not parts or len(parts) != len(items):
        raise ValueError("a command is text for /bin/sh, or a list of texts that is not empty")
    if any("\0" in part for part in parts):
        raise ValueError("a NUL character cannot be part of a command")
    size = sum(len(part.encode(errors="surrogatepass")) + 1 for part in parts)
    if size > MAX_COMMAND_BYTES:
        raise errors.TooLarge(
            f"cannot start a command of more than {MAX_COMMAND_BYTES} bytes", limit=MAX_COMMAND_BYTES, field="command"
        )
    return value


def check_signal(value: object) -> object:
    """Refuse what can be no signal; which signals there are is known where they are sent."""
    if not _is_name_or_number(value):
        raise ValueError("a signal is a name such as 'TERM' or a number")
    if isinstance(value, str) and len(value) > MAX_SIGNAL:
        raise ValueError(f"a signal has at most {MAX_SIGNAL} characters")
    return value


def check_owner(value: object) -> object:
    """Refuse what can be neither name nor id of a user or group; who exists is known in the sandbox."""
    if not _is_name_or_number(value):
        raise ValueError("an owner is a name or a number")
    return value


def _is_name_or_number(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def check_code(text: str) -> str:
    """Refuse code that is too large."""
    if len(text.encode()) > MAX_CODE_BYTES:
        raise errors.TooLarge(
            f"cannot run code of more than {MAX_CODE_BYTES} bytes", limit=MAX_CODE_BYTES, field="code"
        )
    return text


def check_size(*mappings: dict[str, str]) -> None:
    """Raise `TooLarge` when names and values together have more than `MAX_ENV_BYTES` bytes."""
    size = sum(len(name.encode()) + len(value.encode()) for mapping in mappings for name, value in mapping.items())
    if size > MAX_ENV_BYTES:
        raise errors.TooLarge(
            f"cannot take 'env' and 'metadata' of more than {MAX_ENV_BYTES} bytes", limit=MAX_ENV_BYTES, field="env"
        )


class RequestModel(BaseModel):
    """A JSON body."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class QueryModel(BaseModel):
    """A query."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class AnswerModel(BaseModel):
    """A JSON answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# A schema says of a path what it can; `_path` checks it.
Path = Annotated[
    str,
    AfterValidator(_path),
    Field(json_schema_extra={"pattern": "^/", "maxLength": MAX_PATH_BYTES}),
]
Signal = Annotated[
    Annotated[str, Field(json_schema_extra={"maxLength": MAX_SIGNAL})]
    | Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 64})],
    BeforeValidator(check_signal),
]
Env = Annotated[dict[str, str], AfterValidator(_environment)]
Metadata = Annotated[dict[str, str], AfterValidator(_tags)]
User = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(no_nul)]
Command = Annotated[
    str | list[str],
    BeforeValidator(_command),
]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, Field(max_length=1024)]
Encoding = Literal["utf8", "base64"]
PathB64 = Annotated[str, Field(min_length=1, max_length=2 * MAX_PATH_BYTES)]
Token = Annotated[str, Field(min_length=1, max_length=8192)]
