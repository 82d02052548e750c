"""What the journal keeps of sandboxes and execs: immutable, and readable by the worker that comes after a restart.

Records are facts and carry no behaviour. They are made on the event loop and encoded in the journal's thread, so they
must never share a mutable thing with the live world.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from traforo.domain import specs, states
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import happenings


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sandbox, as it was last."""

    sandbox_id: str
    spec: specs.SandboxSpec
    owner: str | None
    state: states.SandboxState
    created_at: float
    """Unix seconds, as every time here."""
    expires_at: float
    reason: states.EndReason | None = None
    ended_at: float | None = None
    oom_kills: int = 0
    start_type: states.StartType = states.StartType.COLD
    jti: str | None = None
    jti_expires_at: float = 0.0
    image: contract.Rootfs | None = None
    idle_seconds: float | None = None
    last_activity_at: float | None = None
    events: tuple[happenings.Event, ...] = ()
    """What tells of its birth and its end; the others have rows of their own."""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a sandbox."""

    sandbox_id: str
    event: happenings.Event


class ExecRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exec. What goes beyond being found and pruned is in `facts`, which belongs to `worker.execs.execs`."""

    exec_id: str
    sandbox_id: str
    status: states.ExecStatus
    started_at: float
    ended_at: float | None = None
    facts: Mapping[str, Any] = {}
    """JSON values."""
