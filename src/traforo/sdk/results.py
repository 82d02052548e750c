"""What the SDK returns: frozen records in the words of the API. No I/O, nothing of HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from traforo.sdk import errors

_STDERR_SHOWN = 400


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as the server describes it."""

    sandbox_id: str
    dns_id: str
    """The same id as one DNS label."""
    name: str | None
    image: str
    virtualization: str
    state: str
    """`pending`, `starting`, `running`, `paused`, `hibernated`, `stopping`, `stopped`, `failed` or `missing`."""
    reason: str | None
    """Why it ended: `deleted`, `expired`, `failed_to_start`, `out_of_memory`, `idle`, `worker_stopped` or `lost`."""
    cpu: float
    """Processors."""
    memory_mib: int
    disk_mib: int
    disk_kind: str
    """`tmpfs` or `disk`."""
    pids: int
    """Most processes and threads at once."""
    metadata: Mapping[str, str]
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    idle_seconds: float | None = None
    """Seconds without activity after which it ends; None is never."""
    idle_at: datetime | None = None
    """When it ends unless something happens; None while something does, or without such a limit."""
    last_activity_at: datetime | None = None
    limits_enforced: tuple[str, ...] = ()
    """Which of `cpu`, `disk`, `memory` and `pids` its host enforces."""


class SandboxList(tuple[SandboxInfo, ...]):  # noqa: SLOT001 - a tuple can have no slot beside its items
    """Sandboxes, newest first: a tuple that knows whether it is whole."""

    missing_workers: tuple[str, ...]
    """Workers that did not answer, so that their sandboxes are not in it."""

    def __new__(cls, found: Iterable[SandboxInfo], missing_workers: Iterable[str] = ()) -> Self:
        """Make a list."""
        self = super().__new__(cls, found)
        self.missing_workers = tuple(missing_workers)
        return self


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A command that ended, or the state of one that still runs. Text is UTF-8 with U+FFFD for what is not."""

    exec_id: str
    sandbox_id: str
    command: str | tuple[str, ...]
    status: str
    """`running` or `exited`."""
    end: str | None
    """`exited`, `signalled`, `timed_out`, `out_of_memory` or `lost`; None while it runs."""
    exit_code: int | None
    """Its own code; 128 + signal when signalled; 124 when the deadline passed; None when lost or running."""
    signal: int | None
    stdout: str
    stderr: str
    output: str
    """Both streams in the order in which they arrived."""
    stdout_truncated: bool
    """True when there was more than a result carries (8 MiB); frames have it all."""
    stderr_truncated: bool
    duration_ms: float | None
    """Milliseconds from start to end; None while it runs."""
    started_at: datetime | None
    completed_at: datetime | None
    runtime: str | None = None
    """Language, where the exec ran code."""
    tag: str | None = None
    """The name that its starter gave it."""
    pid: int | None = None
    """Of its main process, as seen inside the sandbox."""
    tty: bool = False
    """Whether it runs on a terminal; then all output is `stdout`."""
    background: bool = False
    """Whether it does not count as activity of the sandbox."""
    stdin_open: bool = False
    """Whether input can be written."""
    context_id: str | None = None
    """The code context that it ran in."""

    @property
    def ok(self) -> bool:
        """Whether it exited by itself with 0."""
        return self.end == "exited" and self.exit_code == 0

    def check(self) -> ExecResult:
        """Return this result, or raise `CommandFailed` if the command did not exit with 0."""
        if self.ok:
            return self
        how = f"exit code {self.exit_code}" if self.end == "exited" else f"{self.end} (exit code {self.exit_code})"
        end_of_stderr = self.stderr.strip()[-_STDERR_SHOWN:]
        message = f"command {self.command!r} failed: {how}" + (f": {end_of_stderr}" if end_of_stderr else "")
        raise errors.CommandFailed(message, self)


@dataclass(frozen=True, slots=True)
class Frame:
    """One piece of an exec's output, or its end."""

    cursor: int
    """Position of this frame; reading goes on from the `next_cursor` of the handle."""
    type: str
    """`stdout`, `stderr`, `exit`, or `result` for a value that code in a context displayed."""
    data: bytes
    """Exact bytes of the output; for `exit` and `result` the server's own JSON."""
    ts: datetime | None
    """When the worker read it."""

    @property
    def text(self) -> str:
        """The data as UTF-8, with U+FFFD for what is not. A character may be split between two frames."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class FileStat:
    """Facts about one path in a sandbox."""

    path: str
    exists: bool
    type: str | None
    """`file`, `directory`, `symlink` or `other`; None when it does not exist, as are the others then."""
    size: int | None
    """Bytes."""
    mode: int | None
    """Permission bits."""
    uid: int | None
    gid: int | None
    modified_at: datetime | None
    target: str | None
    """Where a symbolic link points."""
    etag: str | None = None
    """Names this version of the content, where the server tells it."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One entry of a directory. Bytes that are not UTF-8 appear in names as Python's surrogate escapes."""

    name: str
    path: str
    type: str
    size: int
    mode: int
    modified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a create."""

    info: SandboxInfo
    connect_url: str
    """Where the worker of this sandbox listens."""
    token: str | None
    """Opens this sandbox and no other; None where the server asks for no credential."""
    start_type: str
    """`cold`, `warm`, `restored` or `forked`."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by phase: `accepted_to_admitted`, `admitted_to_ready`, `total`."""


def as_json(value: Any) -> Any:
    """Return a record (or a sequence or mapping of records) as JSON values, times spelled as the API spells them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
