"""The life of a sandbox as a table: which event takes it from which state to which, and what is never allowed.

The table is the only truth about states. Whoever wants to change one asks `step`, and the diagram in
`docs/concepts/lifecycle.md` is drawn from the same rows. Nothing here acts, waits or knows the time.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from traforo.domain import errors
from traforo.domain.states import EndReason, SandboxState


class Event(enum.StrEnum):
    """What can happen to a sandbox, in words of the worker."""

    ADMITTED = "admitted"
    """Its resources are reserved and its start begins."""
    READY = "ready"
    """The runtime has it: a first command can start."""
    START_FAILED = "start_failed"
    """It could not be started and nothing of it is left."""
    PAUSED = "paused"
    RESUMED = "resumed"
    HIBERNATED = "hibernated"
    """Its memory went to disk; it holds no processes."""
    WOKEN = "woken"
    STOP = "stop"
    """Somebody (caller, lease, worker) wants its end; the kill begins."""
    DIED = "died"
    """The runtime proved it dead."""
    UNREACHABLE = "unreachable"
    """Nobody can tell how it is, as after a restart of the worker, until the runtime was asked."""
    FOUND = "found"
    """The runtime still has it."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One row: `event` takes a sandbox from `source` to `target`; `why` is the line in the documentation."""

    source: SandboxState
    event: Event
    target: SandboxState
    why: str


@dataclass(frozen=True, slots=True)
class Life:
    """Where a sandbox is, and for a stopping or ended one the reason."""

    state: SandboxState
    reason: EndReason | None = None


BIRTHS = (SandboxState.PENDING, SandboxState.MISSING)
"""How an entry begins: a create, or an earlier worker's sandbox that was not yet asked about."""
TERMINAL = frozenset({SandboxState.STOPPED, SandboxState.FAILED})
"""States without a way out; exactly these have an `EndReason` for good."""
STOP_REASONS = frozenset({EndReason.DELETED, EndReason.EXPIRED, EndReason.IDLE, EndReason.WORKER_STOPPED})
"""Reasons for which a sandbox is stopped; the others happen to it."""

_S = SandboxState
_E = Event

TABLE = (
    Transition(_S.PENDING, _E.ADMITTED, _S.STARTING, "the worker reserved its resources"),
    Transition(_S.STARTING, _E.READY, _S.RUNNING, "its init answers"),
    Transition(_S.STARTING, _E.START_FAILED, _S.FAILED, "the runtime could not make it"),
    Transition(_S.RUNNING, _E.PAUSED, _S.PAUSED, "its processes are no longer scheduled"),
    Transition(_S.PAUSED, _E.RESUMED, _S.RUNNING, "its processes go on"),
    Transition(_S.RUNNING, _E.HIBERNATED, _S.HIBERNATED, "its state is on disk, its memory free"),
    Transition(_S.PAUSED, _E.HIBERNATED, _S.HIBERNATED, "its state is on disk, its memory free"),
    Transition(_S.HIBERNATED, _E.WOKEN, _S.STARTING, "it is restored from disk"),
    Transition(_S.RUNNING, _E.STOP, _S.STOPPING, "deleted, expired, idle, or the worker stops"),
    Transition(_S.PAUSED, _E.STOP, _S.STOPPING, "deleted, expired, idle, or the worker stops"),
    Transition(_S.HIBERNATED, _E.STOP, _S.STOPPING, "deleted, expired, idle, or the worker stops"),
    Transition(_S.RUNNING, _E.DIED, _S.STOPPED, "its init died: out of memory, or lost"),
    Transition(_S.PAUSED, _E.DIED, _S.STOPPED, "its init died: out of memory, or lost"),
    Transition(_S.STOPPING, _E.DIED, _S.STOPPED, "everything it held is free again"),
    Transition(_S.RUNNING, _E.UNREACHABLE, _S.MISSING, "the worker lost touch with it"),
    Transition(_S.PAUSED, _E.UNREACHABLE, _S.MISSING, "the worker lost touch with it"),
    Transition(_S.MISSING, _E.FOUND, _S.RUNNING, "the runtime still has it"),
    Transition(_S.MISSING, _E.DIED, _S.STOPPED, "the runtime knows its end, or no longer knows it"),
)

_BY_EVENT = {(row.source, row.event): row.target for row in TABLE}


def step(life: Life, event: Event, reason: EndReason | None = None) -> Life:
    """Return the life after `event`. `reason` goes with `stop` and `died`; of a failed start it is known.

    Raises `Conflict` when the table has no such row, with `state` and `event` in its fields.
    """
    target = _BY_EVENT.get((life.state, event))
    if target is None:
        raise errors.Conflict(
            f"cannot apply {event.value!r} to a sandbox that is {life.state.value}",
            state=life.state.value,
            event=event.value,
        )
    return Life(target, _reason(target, event, reason))


def _reason(target: SandboxState, event: Event, given: EndReason | None) -> EndReason | None:
    if target is SandboxState.FAILED:
        return EndReason.FAILED_TO_START
    if target is SandboxState.STOPPING:
        if given not in STOP_REASONS:
            raise errors.Internal(f"cannot stop a sandbox for the reason {given!r}")
        return given
    if target is SandboxState.STOPPED:
        if given is None or given is EndReason.FAILED_TO_START:
            raise errors.Internal(f"cannot end a sandbox with the reason {given!r}")
        return given
    if given is not None:
        raise errors.Internal(f"cannot give a reason with {event.value!r}")
    return None


def mermaid(table: Iterable[Transition] = TABLE) -> str:
    """Draw the table as a Mermaid state diagram; rows between the same two states share one arrow."""
    arrows: dict[tuple[SandboxState, SandboxState], list[str]] = {}
    for row in table:
        arrows.setdefault((row.source, row.target), []).append(row.event.value)
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {state.value}" for state in BIRTHS]
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    lines += [f"    {state.value} --> [*]" for state in SandboxState if state in TERMINAL]
    return "\n".join(lines) + "\n"


def markdown(table: Iterable[Transition] = TABLE) -> str:
    """List the table as Markdown, one row a transition, in the table's order."""
    lines = ["| from | event | to | because |", "|---|---|---|---|"]
    lines += [f"| `{row.source.value}` | {row.event.value} | `{row.target.value}` | {row.why} |" for row in table]
    return "\n".join(lines) + "\n"
