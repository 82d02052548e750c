"""States of a sandbox and of an exec, and the reasons they end. Transitions are in `traforo.worker.lifecycles`."""

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
    FAILED_TO_START = "failed_to_start"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_STOPPED = "worker_stopped"
    LOST = "lost"
    """Its init died for a reason that nobody asked for and that is not known to be memory."""


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
