"""What the worker knows of one sandbox while it runs and for a while after.

An entry is a record with identity: the supervisor alone changes it, everybody else reads it. It exists apart from the
supervisor so that execs and files can name it without knowing how sandboxes come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from traforo.domain import clocks, ids, specs, states
from traforo.worker.capacity import samples
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities, happenings

LIVE = frozenset(
    {
        states.SandboxState.PENDING,
        states.SandboxState.STARTING,
        states.SandboxState.RUNNING,
        states.SandboxState.PAUSED,
        states.SandboxState.STOPPING,
        states.SandboxState.MISSING,
    }
)
"""States in which a sandbox may still hold processes and resources of this host."""


@dataclass(slots=True, eq=False)
class Entry:
    """One sandbox of this worker. Compared by identity; read-only outside of the supervisor."""

    id: ids.SandboxId
    spec: specs.SandboxSpec
    owner: str | None
    """`client_id` of the creator; None in dev mode."""
    rootfs: contract.Rootfs
    """What its image is."""
    state: states.SandboxState
    created_at: float
    """Unix seconds."""
    expires_at: float
    """Unix seconds; moved by a renewal of the lease."""
    text_id: str = ""
    """The id in its canonical spelling, made once."""
    reason: states.EndReason | None = None
    """Set in `stopping` (why it is being stopped) and in the terminal states (why it ended)."""
    ended_at: float | None = None
    """Unix seconds; set in the terminal states."""
    running: contract.RunningSandbox | None = None
    """Handle of the runtime; None before `running` and after the end."""
    start_type: states.StartType = states.StartType.COLD
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Phases of the start in milliseconds; empty after adoption."""
    jti: str | None = None
    """Id of the token that was used up to create it."""
    jti_expires_at: float = 0.0
    """Unix seconds until which that token would hold."""
    repeat_key: str | None = None
    """The caller's Idempotency-Key."""
    repeat_fingerprint: str | None = None
    """Digest of the request that came with that key."""
    starting: asyncio.Task[None] | None = None
    """The start in progress; a delete waits for it."""
    stopping: asyncio.Task[None] | None = None
    """The one kill in progress; every delete awaits the same."""
    burying: asyncio.Task[None] | None = None
    """Ends its execs after its death."""
    renewing: asyncio.Lock | None = None
    """Orders renewals, so that what the runtime keeps is what was acknowledged last."""
    activity: activities.Activity = field(default_factory=lambda: activities.Activity(clocks.SystemClock()))
    """When it was last used: whoever does something with it calls `activity.touch()`, or keeps an `activity.hold()`."""
    happenings: happenings.Happenings = field(default_factory=lambda: happenings.Happenings(clocks.SystemClock()))
    """Its events: whoever makes something happen calls `happenings.tell(kind, **facts)`."""
    idle_seconds: float | None = None
    """Seconds without use after which it ends; None for no such limit."""
    history: samples.History | None = None
    """What it used; None where nobody asked."""
    last_activity_at: float | None = None
    """Unix seconds; set in the terminal states, where it is known."""
    on_first_exec: Callable[[], None] | None = None
    """Observes the time to the first result; None once it was observed."""

    def __post_init__(self) -> None:
        self.text_id = self.text_id or str(self.id)

    @property
    def live(self) -> bool:
        """Whether it may still hold anything of this host."""
        return self.state in LIVE

    def first_exec_done(self) -> None:
        """Tell that an exec of this sandbox gave its first result. Cheap, and without effect after the first call."""
        observe, self.on_first_exec = self.on_first_exec, None
        if observe is not None:
            observe()
