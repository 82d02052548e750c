"""States of a sandbox and of an exec, and the reasons they end. Transitions are in `worker.sandboxes.lifecycles`."""

from __future__ import annotations

import enum


class SandboxState(enum.StrEnum):
    """Where a sandbox is in its life (words of the API)."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    HIBERNATED = "hibernated"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    MISSING = "missing"


class EndReason(enum.StrEnum):
    """Why a sandbox is in a terminal state."""

    DELETED = "deleted"
    EXPIRED = "expired"
    IDLE = "idle"
    """Nobody had used it for its `idle_seconds`."""
    FAILED_TO_START = "failed_to_start"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_STOPPED = "worker_stopped"
    LOST = "lost"
    """Its init died for a reason that nobody asked for and that is not known to be memory."""


class Happening(enum.StrEnum):
    """What is told of a sandbox in its events."""

    CREATED = "created"
    """It was asked for and admitted."""
    READY = "ready"
    """A first command can start."""
    START_FAILED = "start_failed"
    ADOPTED = "adopted"
    """The worker was started again and found it alive."""
    LEASE_RENEWED = "lease_renewed"
    EXEC_STARTED = "exec_started"
    EXEC_ENDED = "exec_ended"
    CONTEXT_CREATED = "context_created"
    CONTEXT_RESTARTED = "context_restarted"
    CONTEXT_DIED = "context_died"
    """Its interpreter ended unasked."""
    CONTEXT_DELETED = "context_deleted"
    PORT_PUBLISHED = "port_published"
    """A port can be reached without a credential."""
    PORT_UNPUBLISHED = "port_unpublished"
    OOM = "oom"
    """Its memory limit killed a process."""
    STOPPING = "stopping"
    """It is being killed, and why."""
    STOPPED = "stopped"
    """It is dead, and why. The ends of commands that it took along may be told after it."""


class ExecStatus(enum.StrEnum):
    """Whether an exec still runs."""

    RUNNING = "running"
    EXITED = "exited"


class ExecEnd(enum.StrEnum):
    """How an exec ended. Only `exited` and `signalled` say something about the command itself."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"


class StartType(enum.StrEnum):
    """Which way a sandbox came up."""

    COLD = "cold"
    WARM = "warm"
    RESTORED = "restored"
    FORKED = "forked"


class DiskKind(enum.StrEnum):
    """Where the writable layer of a sandbox lives: in memory (within its memory limit), or on the worker's disk."""

    TMPFS = "tmpfs"
    DISK = "disk"
