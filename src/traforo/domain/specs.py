"""What a caller asks for, checked and complete: the request of a sandbox and of an exec after parsing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from traforo.domain.states import DiskKind


@dataclass(frozen=True, slots=True)
class Resources:
    """Ceilings of one sandbox, all enforced by the kernel."""

    cpu: float
    """Processors, 0.01 and up; a sandbox gets at most this share of processor time."""
    memory_mib: int
    """Memory of all its processes and of a tmpfs disk together, without swap."""
    disk_mib: int
    """Size of the writable layer."""
    pids: int
    """Processes and threads at once."""
    disk_kind: DiskKind = DiskKind.TMPFS


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox as asked for, with defaults filled in."""

    image: str
    virtualization: str
    resources: Resources
    ttl_seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    hardware_sku: str | None = None
    idle_seconds: float | None = None
    """Seconds without use after which it ends; None for no such limit. What a renewal changed is in the entry."""
    on_expiry: str = "kill"
    """What happens when lease or idle limit are over."""
    prepare: tuple[str, ...] = ()
    """Languages whose interpreters are made ready before anybody asks."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Size of a terminal in characters, 1 to 4096 each."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One command as asked for."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to (and winning over) the sandbox's own environment."""
    cwd: str | None = None
    """Absolute; None is the user's home directory."""
    user: str | None = None
    """Name or number (`user`, `root`, `1000`, `1000:1000`); None is the image's default user."""
    timeout_ms: int | None = None
    """Deadline after which the whole tree is killed; None is no deadline."""
    stdin: bool = False
    """True opens a pipe to the command; False gives it /dev/null."""
    command: str = ""
    """What the caller typed, for records."""
    runtime: str | None = None
    """Language, where the exec runs code (`python`, `node`, `bash`)."""
    stdin_data: bytes | None = None
    """Input that is written at its start."""
    stdin_open: bool = False
    """More input may come; else its end is told behind `stdin_data`."""
    terminal: Terminal | None = None
    """Run it on a terminal of this size."""
    tag: str | None = None
    """What its caller calls it."""
    background: bool = False
    """Nobody waits for it, and it does not count as use of its sandbox."""
