"""Code contexts: interpreters that keep their state, and the runs of code in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from traforo.api.schemas import execs, fields

_CONTEXT_ID = "ctx_01KAP5WKY6D8T3M2RC6B2VQ0HZ"


class ContextCreate(fields.RequestModel):
    """A context to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"runtime": "python", "name": "analysis"}]})

    runtime: Literal["python", "node", "bash"] = "python"
    """Its language."""
    cwd: fields.Path | None = None
    """Where it starts; the user's home directory by default."""
    env: fields.Env = Field(default_factory=dict)
    """Added to the sandbox's own environment, for as long as the context lives; at most 24 KiB."""
    user: fields.User | None = None
    """Name or number; the image's default user by default."""
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """What to call it."""


class CodeContext(fields.AnswerModel):
    """A context."""

    context_id: Annotated[str, Field(examples=[_CONTEXT_ID])]
    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    runtime: Annotated[str, Field(examples=["python"])]
    name: str | None
    status: Literal["idle", "busy", "dead"]
    """`dead`: its interpreter has ended; a restart gives it a fresh one."""
    cwd: str | None
    """As asked for; null is the user's home directory."""
    user: Annotated[str, Field(examples=["root"])]
    created_at: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    execution_count: Annotated[int, Field(examples=[3])]
    """Runs in this interpreter."""


class ContextList(fields.AnswerModel):
    """The contexts of a sandbox, the oldest first."""

    contexts: list[CodeContext]


class RunCreate(fields.RequestModel):
    """Code to run in a context."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "x = 6 * 7\nx"}]})

    code: Annotated[str, AfterValidator(fields.check_code)]
    """The program, at most 1 MiB."""
    timeout_ms: Annotated[int, Field(ge=1, le=fields.MAX_TIMEOUT_MS)] = 30_000
    """Milliseconds, from its beginning, after which it is interrupted; if that does not help its context is killed."""
    env: fields.Env = Field(default_factory=dict)
    """Added to the environment for this run."""
    tag: execs.Tag | None = None
    """What to call it."""
    wait: bool = True
    """Answer when the run has ended."""


class RunError(fields.AnswerModel):
    """What the code did not catch."""

    name: Annotated[str, Field(examples=["ZeroDivisionError"])]
    value: Annotated[str, Field(examples=["division by zero"])]
    traceback: list[str]
    """Lines."""


class ContextRun(execs.Exec):
    """A run that has ended: an exec, and what its code showed."""

    results: Annotated[list[dict[str, Any]], Field(examples=[[{"text/plain": "42", "is_main": True}]])]
    """Values by MIME type: text, base64 of bytes, or JSON; `is_main` is true of the value of the last expression."""
    results_truncated: bool
    """There was more than an answer carries; frames have it all."""
    error: RunError | None
    execution_count: int | None
    """Which run of its interpreter it was; null when that ended before it could tell."""
