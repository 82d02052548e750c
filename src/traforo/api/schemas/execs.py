"""Execs: commands and code, their results, their output piece by piece."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from traforo.api.schemas import fields
from traforo.domain.states import ExecEnd, ExecStatus


class ExecCreate(fields.RequestModel):
    """A command to run."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"command": "echo $HOME", "wait": True}, {"command": ["ls", "-l", "/"]}]}
    )

    command: fields.Command = "true"
    """Text for `/bin/sh -c`, or program and arguments."""
    env: fields.Env = Field(default_factory=dict)
    """Added to the sandbox's own environment."""
    cwd: fields.Path | None = None
    """Where to start; the user's home directory by default."""
    user: fields.User | None = None
    """Name or number, `1000:1000` for a group as well; the image's default user by default."""
    timeout_ms: Annotated[int, Field(ge=1, le=fields.MAX_TIMEOUT_MS)] | None = None
    """Milliseconds after which the whole tree of processes is killed."""
    wait: bool = False
    """Answer when the command has ended."""


class CodeCreate(fields.RequestModel):
    """Code to run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "print(6 * 7)", "runtime": "python"}]})

    code: Annotated[str, AfterValidator(fields.check_code)]
    """The program, at most 1 MiB."""
    runtime: Literal["python", "node", "bash"] = "python"
    """Its language."""
    timeout_ms: Annotated[int, Field(ge=1, le=fields.MAX_TIMEOUT_MS)] = 30_000
    """Milliseconds after which the whole tree of processes is killed."""
    cwd: fields.Path | None = None
    """Where to start; the user's home directory by default."""
    env: fields.Env = Field(default_factory=dict)
    """Added to the sandbox's own environment."""
    user: fields.User | None = None
    """Name or number; the image's default user by default."""
    wait: bool = True
    """Answer when the code has ended."""


class ExecStarted(fields.AnswerModel):
    """A command that runs."""

    exec_id: Annotated[str, Field(examples=[fields.EXEC_ID])]
    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    status: ExecStatus
    poll_url: Annotated[str, Field(examples=[f"/sandboxes/{fields.SANDBOX_ID}/exec/{fields.EXEC_ID}"])]
    frames_url: Annotated[str, Field(examples=[f"/sandboxes/{fields.SANDBOX_ID}/exec/{fields.EXEC_ID}/frames"])]


class ExecSummary(fields.AnswerModel):
    """An exec without its output."""

    exec_id: Annotated[str, Field(examples=[fields.EXEC_ID])]
    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    command: Annotated[str | list[str], Field(examples=["echo $HOME"])]
    """As the caller wrote it."""
    runtime: str | None
    """Language, where the exec ran code."""
    status: Annotated[ExecStatus, Field(examples=["exited"])]
    end: Annotated[ExecEnd | None, Field(examples=["exited"])]
    """How it ended; null while it runs."""
    exit_code: Annotated[int | None, Field(examples=[0])]
    """Its own; 128 + signal when it was signalled; 124 when its deadline passed; null while it runs, or when it was
    lost."""
    signal: int | None
    """Number of the signal that ended it."""
    duration_ms: Annotated[float | None, Field(examples=[1.9])]
    started_at: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    completed_at: Annotated[fields.Timestamp | None, Field(examples=["2026-11-21T12:00:00.002Z"])]


class Exec(ExecSummary):
    """An exec with its output so far. Text is UTF-8 with U+FFFD for what is not; frames give exact bytes."""

    stdout: Annotated[str, Field(examples=["/root\n"])]
    stderr: str
    output: Annotated[str, Field(examples=["/root\n"])]
    """Both streams in the order in which they arrived."""
    stdout_truncated: bool
    """There was more than a result carries; frames have it all."""
    stderr_truncated: bool


class ExecQuery(fields.QueryModel):
    """Which execs to list."""

    limit: fields.Limit = 100
    """Most execs to return."""
    cursor: fields.Cursor | None = None
    """`next_cursor` of the page before."""


class ExecPage(fields.AnswerModel):
    """Some execs of a sandbox, newest first."""

    execs: list[ExecSummary]
    next_cursor: str | None
    """Gives the next page; null on the last."""


class FrameQuery(fields.QueryModel):
    """Which frames to read."""

    cursor: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """The first frame wanted: 0, or `next_cursor` of the page before."""
    wait: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Seconds to wait for a frame where there is none yet."""
    limit: fields.Limit = fields.MAX_PAGE
    """Most frames to return."""
    encoding: fields.Encoding = "utf8"
    """`base64` gives exact bytes."""


class Frame(fields.AnswerModel):
    """One piece of output, or the end."""

    cursor: Annotated[int, Field(examples=[0])]
    type: Literal["stdout", "stderr", "exit"]
    data: Annotated[str, Field(examples=["/root\n"])]
    ts: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    """When the worker read it."""


class FramePage(fields.AnswerModel):
    """Some frames of an exec, oldest first."""

    frames: list[Frame]
    next_cursor: Annotated[int, Field(examples=[1])]
    """Where to go on, now or later."""
    has_more: bool
    """There are more now, or more may come."""
    wait_applied: float
    """Seconds that this answer was held back for at most."""
    dropped: int
    """Bytes of output that are no longer kept."""


class SignalCreate(fields.RequestModel):
    """A signal to send."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "TERM", "tree": True}]})

    signal: Annotated[Annotated[str, Field(max_length=32)] | int, BeforeValidator(fields.check_signal)] = "TERM"
    """Name, with or without `SIG`, or number."""
    tree: bool = True
    """Send it to every process that descends from the exec, and not to the first alone."""
