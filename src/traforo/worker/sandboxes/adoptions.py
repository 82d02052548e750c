"""What a starting worker makes of what an earlier one left: the runtime's labels, the journal, or both.

Pure. Three rules: the label wins, because it was written before the sandbox was acknowledged and the journal after;
what the runtime no longer knows is lost, and said to be; what cannot be read is left alone, because a clean-up never
removes what it merely failed to understand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from traforo.domain import errors, ids, states
from traforo.worker.journal import records
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, labels, lifecycles


@dataclass(frozen=True, slots=True)
class Found:
    """A sandbox that still runs. Its entry is `running` already but for the resources to restore."""

    entry: entries.Entry
    running: contract.RunningSandbox
    image_known: bool
    """False where the image has to be asked what commands start with."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A sandbox that has ended."""

    entry: entries.Entry
    oom_kills: int
    news: bool
    """True where the journal does not know the end yet."""
    forget: bool
    """True where the runtime still remembers it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a starting worker takes over, ended ones in the order of their ends."""

    live: list[Found]
    ended: list[Ended]
    unreadable: list[str]
    """Ids of live sandboxes that nobody can describe; they run on until their deadline."""
    nameless: list[str]
    """Ids of dead sandboxes that nobody can describe or ask for; the runtime may forget them."""
    spares: list[contract.RunningSandbox]
    """Live sandboxes that are nobody's."""


def plan(adoption: contract.Adoption, journal: Iterable[records.SandboxRecord], now: float) -> Plan:
    """Match what the runtime has with what the journal says."""
    known = {record.sandbox_id: record for record in journal}
    result = Plan([], [], [], [], [])
    for running in adoption.live:
        if _spare(running.label):
            result.spares.append(running)
            continue
        described = _describe(running.sandbox_id, running.label, known.pop(running.sandbox_id, None))
        if described is None:
            result.unreadable.append(running.sandbox_id)
            continue
        entry, image_known = described
        entry.state = lifecycles.step(lifecycles.Life(entry.state), lifecycles.Event.FOUND).state
        entry.running = running
        result.live.append(Found(entry, running, image_known))
    for dead in adoption.dead:
        record = known.pop(dead.sandbox_id, None)
        if _spare(dead.label):
            result.nameless.append(dead.sandbox_id)
        elif record is not None and record.ended_at is not None:
            result.ended.append(Ended(_from_record(record), record.oom_kills, news=False, forget=True))
        elif (described := _describe(dead.sandbox_id, dead.label, record)) is not None:
            entry = _end(described[0], dead.end.reason, now)
            result.ended.append(Ended(entry, dead.end.oom_kills, news=True, forget=True))
        else:
            result.nameless.append(dead.sandbox_id)
    for record in known.values():
        if record.ended_at is not None:
            result.ended.append(Ended(_from_record(record), record.oom_kills, news=False, forget=False))
        else:
            entry = _end(_missing(record), states.EndReason.LOST, now)
            result.ended.append(Ended(entry, record.oom_kills, news=True, forget=False))
    result.ended.sort(key=lambda ended: ended.entry.ended_at or 0.0)
    return result


def _spare(label: bytes) -> bool:
    """Tell whether a sandbox is one that nobody was told of."""
    try:
        return labels.decode(label).spare
    except errors.InvalidRequest:
        return False


def _describe(sandbox_id: str, label: bytes, record: records.SandboxRecord | None) -> tuple[entries.Entry, bool] | None:
    """Return an entry in state `missing` and whether its image is known; by label, else by journal, else None."""
    try:
        return _from_label(sandbox_id, labels.decode(label))
    except errors.InvalidRequest:
        return None if record is None else (_missing(record), record.image is not None)


def _from_label(sandbox_id: str, label: labels.Label) -> tuple[entries.Entry, bool]:
    entry = entries.Entry(
        id=ids.parse_sandbox_id(sandbox_id),
        spec=label.spec,
        owner=label.owner,
        rootfs=label.image or contract.Rootfs(label.spec.image, ()),
        state=states.SandboxState.MISSING,
        created_at=label.created_at,
        expires_at=label.expires_at,
        jti=label.jti,
        jti_expires_at=label.jti_expires_at,
        repeat_key=label.repeat_key,
        repeat_fingerprint=label.repeat_fingerprint,
        idle_seconds=label.idle_seconds,
    )
    return entry, label.image is not None


def _missing(record: records.SandboxRecord) -> entries.Entry:
    return entries.Entry(
        id=ids.parse_sandbox_id(record.sandbox_id),
        spec=record.spec,
        owner=record.owner,
        rootfs=record.image or contract.Rootfs(record.spec.image, ()),
        state=states.SandboxState.MISSING,
        created_at=record.created_at,
        expires_at=record.expires_at,
        start_type=record.start_type,
        jti=record.jti,
        jti_expires_at=record.jti_expires_at,
        idle_seconds=record.idle_seconds,
        last_activity_at=record.last_activity_at,
    )


def _from_record(record: records.SandboxRecord) -> entries.Entry:
    entry = _missing(record)
    entry.state, entry.reason, entry.ended_at = record.state, record.reason, record.ended_at
    return entry


def _end(entry: entries.Entry, reason: states.EndReason, now: float) -> entries.Entry:
    life = lifecycles.step(lifecycles.Life(entry.state), lifecycles.Event.DIED, reason)
    entry.state, entry.reason, entry.ended_at = life.state, life.reason, _ended_at(entry, reason, now)
    return entry


def _ended_at(entry: entries.Entry, reason: states.EndReason, now: float) -> float:
    """Return when it ended, as well as it can be known: at its deadline, or when the loss was seen."""
    return min(now, entry.expires_at) if reason is states.EndReason.EXPIRED else now


def used_tokens(found: Mapping[str, float], plan: Plan) -> dict[str, float]:
    """Return every `jti` that must not work again: the journal's, and those that sandboxes were paid with.

    Ended ones too: one may have died before the journal knew of it.
    """
    paid = [one.entry for one in plan.live] + [one.entry for one in plan.ended]
    return dict(found) | {entry.jti: entry.jti_expires_at for entry in paid if entry.jti is not None}
