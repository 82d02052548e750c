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
