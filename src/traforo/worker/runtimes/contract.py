"""What a runtime must do. The worker knows runtimes by this contract only, and `tests/contract` holds each one to it.

A runtime makes isolated sandboxes and nothing else: it does not admit, count, log or answer HTTP. Whatever it returns
came out of a hostile place and has been checked by it. Labels are opaque bytes that the runtime keeps *outside* the
worker's process and gives back on adoption: they are how a worker that was killed finds what it had acknowledged.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from traforo.domain.specs import Resources
from traforo.domain.states import EndReason

LIMITS = frozenset({"cpu", "disk", "memory", "pids"})
"""What a sandbox can be limited in."""
MAX_LABEL_BYTES = 32 * 1024
"""Most bytes of one label, of a sandbox or of an exec."""
MAX_COMMAND_BYTES = 128 * 1024
"""Most bytes of argv and env of one exec together, with one byte for each string's end."""
MAX_PATH_BYTES = 4095
"""Most bytes of a path (Linux PATH_MAX without its end)."""


@dataclass(frozen=True, slots=True)
class Lower:
    """One read-only directory of the host that appears, writable through an overlay, at `target` in the sandbox."""

    source: str
    """Absolute path on the host."""
    target: str
    """Absolute path in the sandbox; the first lower of an image has `/`."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """What an image is to a runtime: directories ready to be mounted, and what a command in it starts with."""

    image: str
    """The reference as the caller wrote it."""
    lowers: tuple[Lower, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = "root"
    """Default user, as a name or number of the image's own /etc/passwd."""
    cwd: str | None = None
    """Default working directory; None is the user's home."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """Everything a runtime needs to make one sandbox."""

    sandbox_id: str
    hostname: str
    resources: Resources
    rootfs: Rootfs
    label: bytes
    deadline: float | None
    """Unix seconds at which the sandbox must be dead even if no worker runs; None for never."""


@dataclass(frozen=True, slots=True)
class SandboxEnd:
    """A sandbox is dead and everything it held is free again."""

    reason: EndReason
    oom_kills: int = 0
    """Processes that its memory limit killed, over its whole life; 0 where the host cannot tell."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Of a terminal, in characters; 1 to 4096 each."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ExecStart:
    """One command to start. `argv[0]` is looked up in the PATH of `env` when it has no slash."""

    label: bytes
    argv: Sequence[str]
    env: Mapping[str, str]
    """The whole environment; HOME, USER, LOGNAME and SHELL are added where missing."""
    cwd: str | None = None
    user: str = "root"
    stdin: bool = False
    """Whether input can be written; without it the command reads /dev/null."""
    terminal: TerminalSize | None = None
    """Run it on a terminal of this size, as the leader of a session whose terminal that is. Implies `stdin`."""


@dataclass(frozen=True, slots=True)
class ExecExit:
    """How the main process of an exec ended: exactly one of `code` and `signal` is set, or neither if it was lost."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    """The memory limit of the sandbox killed a process while this exec ran, and this exec died by SIGKILL."""


class RunningExec(Protocol):
    """A command that was started and has not been released."""

    number: int
    """Unique within its sandbox, 1 and up."""
    label: bytes
    pid: int
    """Process id inside the sandbox."""
    stdout: int
    """Read end of a pipe, non-blocking; owned by the caller of `exec`, who closes it. -1 once given away."""
    stderr: int
    """The same; -1 on a terminal, whose output is all in `stdout`."""
    stdin: int
    """Write end of a pipe, non-blocking, owned by the caller; -1 where stdin is /dev/null or its end was told. Closing
    it ends nothing: that takes `close_stdin`. So input can go on after the worker was started again."""
    ended: asyncio.Future[ExecExit]
    """Done when the main process is reaped (or provably lost). Never raises, never cancelled."""

    async def signal(self, number: int, *, tree: bool) -> None:
        """Send a signal to the main process, or to every process that descends from this exec.

        SIGKILL to the tree leaves no survivor, however the tree forks. Raises `NotFound` if there is none to signal.
        """
        ...

    async def close_stdin(self) -> None:
        """Tell the end of the input, once everything that was written is read. Idempotent.

        `stdin` is closed by its owner beforehand. A terminal is told by its end-of-file character instead.
        """
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Set the size of its terminal. Raises `Conflict` where it has none, `NotFound` when it has ended."""
        ...

    async def release(self) -> None:
        """Forget this exec: its exit is safe elsewhere. Processes it left behind go on, their output discarded."""
        ...


class FileKind(enum.StrEnum):
    """What a directory entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a FIFO or a socket."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """Facts about one path. Ids are those seen inside the sandbox."""

    path: str
    kind: FileKind
    size: int
    """Bytes; 0 for what is not a file."""
    mode: int
    """Permission bits, set-id and sticky bits included."""
    uid: int
    gid: int
    modified_at: float
    """Unix seconds."""
    target: str | None = None
    """Where a symbolic link points."""
    modified_ns: int | None = None
    """`modified_at` exactly, where the runtime can say it."""
    inode: int | None = None
    """Of a regular file, as `os.fstat` of what `open` returns has it; None where it cannot be told."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries below a directory. `truncated` when there were more than the limit."""

    entries: Sequence[FileStat]
    truncated: bool


class ChangeKind(enum.StrEnum):
    """What happened to a path that is watched."""

    CREATED = "created"
    """It was made, or moved to here."""
    MODIFIED = "modified"
    """Its content was written."""
    ATTRIBUTES = "attributes"
    """Its mode, owner or times were changed."""
    DELETED = "deleted"
    """It was removed, or moved away."""
    OVERFLOW = "overflow"
    """Changes were lost: look at everything again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change below a directory that is watched."""

    kind: ChangeKind
    path: str
    """Absolute path in the sandbox; of the watched directory for an overflow."""
    directory: bool = False
    """Whether the path is a directory."""
    moved_from: str | None = None
    """Where it was before, for what was moved within the watched tree."""


class Watch(Protocol):
    """A running watch. Its owner closes it."""

    async def changes(self) -> Sequence[Change]:
        """Return the next changes, at least one, in order; empty once the watch is over: directory or sandbox gone.

        What is moved within the watched tree is one change, `CREATED` with `moved_from`. What is in a new directory is
        told entry by entry, and while it is being filled perhaps twice.
        """
        ...

    async def close(self) -> None:
        """Stop watching. Idempotent."""
        ...


class Files(Protocol):
    """Files of a sandbox. Paths are absolute, resolved inside the sandbox with the rights of `user`.

    Every method raises `NotFound`, `Forbidden`, `InvalidRequest`, `Conflict` or `DiskFull`; strings that are not UTF-8
    travel with surrogate escapes. The final component is followed if it is a link, except by `remove`, `rename`,
    `symlink`, `link`, and by `stat` and `change` where `follow` is False.
    """

    async def open(self, path: str, flags: int, mode: int = 0o644, *, user: str) -> int:
        """Open a regular file with `os.O_*` flags and return a descriptor that the caller closes.

        Parents are made for O_CREAT. Directories, devices, FIFOs and sockets are refused with `InvalidRequest`,
        without blocking.
        """
        ...

    async def stat(self, path: str, *, user: str, follow: bool = True) -> FileStat:
        """Return facts about one path."""
        ...

    async def list(self, path: str, *, user: str, recursive: bool, limit: int) -> Listing:
        """Return at most `limit` entries below a directory, in no order, links not followed; paths are absolute."""
        ...

    async def fill(self, descriptor: int, source: int, path: str, *, user: str) -> None:
        """Write what comes from a source, a pipe or a file, to an open file, up to its end; `path` is for errors.

        The sandbox writes: the memory that it takes, of a disk in memory too, is its own.
        """
        ...

    def direct(self, count: int) -> bool:
        """Say whether the caller may write so many bytes itself: as long as it is little, it is sooner done."""
        ...

    async def mkdir(self, path: str, mode: int = 0o755, *, user: str, parents: bool) -> bool:
        """Make a directory; False if it was there. `NotFound` when a parent is missing and `parents` is False."""
        ...

    async def remove(self, path: str, *, user: str, recursive: bool) -> None:
        """Remove a file, a link or a directory. `Conflict` when a directory is not empty and `recursive` is False."""
        ...

    async def draft(self, path: str, mode: int = 0o644, *, user: str) -> int:
        """Make a file without a name in the directory of `path`, and return a descriptor that the caller closes.

        Missing parents are made. It can be written, is gone when it is closed, and gets its name by `place`.
        `InvalidRequest` (EOPNOTSUPP) where the file system has no such files.
        """
        ...

    async def place(self, descriptor: int, path: str, *, user: str, exclusive: bool) -> None:
        """Give an open file of this sandbox the name `path`, in place of the file that has it.

        With `exclusive` nothing is replaced: `Conflict`. What it was called before it is called still.
        """
        ...

    async def rename(self, path: str, to: str, *, user: str, exclusive: bool = False) -> None:
        """Rename within one file system, replacing what `to` names; with `exclusive` nothing is: `Conflict`."""
        ...

    async def change(
        self,
        path: str,
        *,
        user: str,
        follow: bool = True,
        below: str | None = None,
        descriptor: int | None = None,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_at: float | None = None,
    ) -> None:
        """Change permission bits, owner and group (ids as seen inside), modification time (Unix seconds).

        None leaves one as it is. A link has no permission bits: `InvalidRequest`. What is changed is at `path`; or at
        the relative path `below` it, reached without following a link (`InvalidRequest`, ELOOP or ENOTDIR); or it is
        the open file `descriptor`, whatever `path` names by now.
        """
        ...

    async def symlink(self, target: str, path: str, *, user: str) -> None:
        """Make a symbolic link at `path` that says `target`. `Conflict` when something is there."""
        ...

    async def link(self, existing: str, path: str, *, user: str) -> None:
        """Make another name for a file, or for a link itself. `Conflict` when something is there."""
        ...

    async def watch(self, path: str, *, user: str, recursive: bool) -> Watch:
        """Watch a directory, or everything below it, new directories included. `RateLimited` when too many watch."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox uses now. None where this host cannot tell."""

    cpu_seconds: float | None = None
    """Of all its processes since it was made."""
    memory_bytes: int | None = None
    """Charged to it, page cache and tmpfs included."""
    memory_peak_bytes: int | None = None
    pids: int | None = None
    """Processes and threads, the init not counted."""
    disk_bytes: int | None = None
    """Used of its writable layer."""
    disk_limit_bytes: int | None = None
    network_received_bytes: int | None = None
    """On interfaces other than loopback."""
    network_sent_bytes: int | None = None
    oom_kills: int = 0


class RunningSandbox(Protocol):
    """A live sandbox."""

    sandbox_id: str
    label: bytes
    deadline: float | None
    pid: int
    """Host process id of its init."""
    files: Files
    timings_ms: Mapping[str, float]
    """Phases of the start that the runtime measured; empty after adoption."""
    ended: asyncio.Future[SandboxEnd]
    """Done when it is dead. Never raises, never cancelled."""

    async def exec(self, start: ExecStart) -> RunningExec:
        """Start a command.

        Raises `StartFailed` (unknown command, bad cwd, no permission, limits) and `NotFound` (user).
        """
        ...

    async def execs(self) -> Sequence[RunningExec]:
        """Return the execs that were not released, ended ones too, with fresh descriptors: for adoption."""
        ...

    async def connect(self, port: int | str) -> socket.socket:
        """Return a connected, non-blocking stream socket to a server inside, whatever networks the sandbox has.

        A number is a TCP port on loopback, 127.0.0.1 before ::1; a text is the name of an abstract Unix socket. The
        socket's open file is this process's alone. Raises `NotFound` (kind `port`) when nothing listens, `Lost`,
        `RateLimited`.
        """
        ...

    async def usage(self) -> Usage:
        """Return what it uses now."""
        ...

    async def update(self, *, label: bytes, deadline: float | None) -> None:
        """Replace label and deadline; when it returns they survive this process."""
        ...

    async def kill(self, reason: EndReason) -> SandboxEnd:
        """Kill everything in it and return when it is dead. Idempotent: the first reason stays."""
        ...


@dataclass(frozen=True, slots=True)
class DeadSandbox:
    """A sandbox that ended while no worker was there to see it; kept by the runtime until `forget`."""

    sandbox_id: str
    label: bytes
    end: SandboxEnd


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a runtime still had from an earlier worker process."""

    live: Sequence[RunningSandbox]
    dead: Sequence[DeadSandbox]


class Runtime(Protocol):
    """A provider of one virtualization."""

    virtualization: str
    limits_enforced: frozenset[str]
    """Which of `LIMITS` this host can enforce."""

    async def start(self) -> Adoption:
        """Get ready to create, and return what outlived an earlier worker. Raises `StartFailed`."""
        ...

    async def create(self, request: CreateRequest) -> RunningSandbox:
        """Make a sandbox that can run a command at once. Raises `StartFailed`; then nothing of it is left."""
        ...

    async def forget(self, sandbox_id: str) -> None:
        """Drop the memory of a dead sandbox: its end is safe elsewhere. Unknown ids are fine."""
        ...

    async def close(self, *, keep: bool) -> None:
        """Stop. With `keep` live sandboxes go on without this process; else they are killed."""
        ...
