"""Execs: commands and code, their results, their output piece by piece."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from traforo.api.schemas import fields
from traforo.domain.states import ExecEnd, ExecStatus


class TerminalSize(fields.RequestModel):
    """Size of a terminal in characters."""

    rows: Annotated[int, Field(ge=1, le=4096)] = 24
    columns: Annotated[int, Field(ge=1, le=4096)] = 80


Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["build"])]


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
    stdin: str | None = None
    """Its input, as text."""
    stdin_b64: Annotated[str, Field(examples=["aGVsbG8K"])] | None = None
    """Its input, as bytes in base64."""
    stdin_open: bool = False
    """More input may come; else its end is told behind `stdin`, and without that it reads nothing."""
    tty: TerminalSize | None = None
    """Run it on a terminal of this size: its input stays open, and all its output is stdout."""
    background: bool = False
    """It does not count as use of the sandbox, whose idle limit then holds although it runs. Excludes `wait`."""
    tag: Tag | None = None
    """What to call it. Several may have the same."""


class TerminalCreate(fields.RequestModel):
    """A terminal to open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rows": 40, "columns": 120}]})

    rows: Annotated[int, Field(ge=1, le=4096)] = 24
    columns: Annotated[int, Field(ge=1, le=4096)] = 80
    command: fields.Command | None = None
    """What runs on it; the user's login shell by default."""
    env: fields.Env = Field(default_factory=dict)
    """Added to the sandbox's own environment; TERM is `xterm-256color` by default."""
    cwd: fields.Path | None = None
    """Where to start; the user's home directory by default."""
    user: fields.User | None = None
    """Name or number; the image's default user by default."""
    tag: Tag | None = None
    """What to call it."""
    timeout_ms: Annotated[int, Field(ge=1, le=fields.MAX_TIMEOUT_MS)] | None = None
    """Milliseconds after which everything on it is killed."""


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
    tag: Tag | None = None
    """A name of the caller's own, by which it can be found."""
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
    tag: Annotated[str | None, Field(examples=["build"])]
    """What its caller calls it."""
    pid: int | None
    """Process id inside the sandbox; null for what runs in a context."""
    tty: bool
    """It runs on a terminal."""
    background: bool
    """It does not count as use of the sandbox."""
    context_id: str | None
    """The context that runs it."""
    stdin_open: bool
    """Its stdin can be written now."""


class Terminal(ExecSummary):
    """An exec on a terminal."""

    ws_url: Annotated[
        str, Field(examples=[f"ws://10.0.0.7:8081/sandboxes/{fields.SANDBOX_ID}/exec/{fields.EXEC_ID}/ws"])
    ]
    """Where to attach to it."""


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
    tag: Tag | None = None
    """Those that are called so."""
    status: ExecStatus | None = None
    """Those that run, or those that have ended."""
    pid: Annotated[int, Field(ge=1)] | None = None
    """Those of this process id inside the sandbox; ended ones may have had the same."""


class TerminalPage(fields.AnswerModel):
    """Some terminals of a sandbox, newest first."""

    terminals: list[Terminal]
    next_cursor: str | None
    """Gives the next page; null on the last."""


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


class StreamQuery(fields.QueryModel):
    """What to stream, and how."""

    cursor: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """The first frame wanted; the header `Last-Event-ID` says the same."""
    encoding: fields.Encoding = "utf8"
    """`base64` gives exact bytes."""
    follow: bool = True
    """Go on until the exec has ended; else only what is there."""


class SocketQuery(fields.QueryModel):
    """From where to begin."""

    cursor: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """The first frame wanted."""


class StdinQuery(fields.QueryModel):
    """What comes behind the input."""

    close: bool = False
    """Its end."""


class Frame(fields.AnswerModel):
    """One piece of output, or the end."""

    cursor: Annotated[int, Field(examples=[0])]
    type: Literal["stdout", "stderr", "exit", "result"]
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

    signal: fields.Signal = "TERM"
    """Name, with or without `SIG`, or number."""
    tree: bool = True
    """Send it to every process that descends from the exec, and not to the first alone."""


class SignalAllCreate(SignalCreate):
    """A signal to send to execs of a sandbox: to those with a tag, to that of a process id, or to one by its id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "TERM", "tag": "build"}]})

    tag: Tag | None = None
    pid: Annotated[int, Field(ge=1)] | None = None
    exec_id: Annotated[str, Field(max_length=64, examples=[fields.EXEC_ID])] | None = None

    @model_validator(mode="after")
    def _one(self) -> SignalAllCreate:
        if sum(value is not None for value in (self.tag, self.pid, self.exec_id)) != 1:
            raise ValueError("one of 'tag', 'pid' and 'exec_id' says to whom")
        return self


class Signalled(fields.AnswerModel):
    """Who got a signal."""

    signalled: int
    """Execs that it reached; those that had ended do not count."""
