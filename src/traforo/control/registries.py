"""The registry of workers, decided without I/O: what a registration, a heartbeat, a leave or the passing of time means.

    unknown ──register──▶ live ──lease passes──▶ unavailable ──register──▶ live
       ▲                   │ ▲└─heartbeat─┘           │
       └──────deregister───┴─┼───── or forgotten ─────┘
                             └─ moved: another base_url, same id

Each function looks at the state and returns the change; `apply` alone carries changes out. A host name belongs to one
worker: another worker gets it only when the holder's lease has passed, since ids of sandboxes route by it.
It refuses to know how workers are reached, stored or chosen; see `registrars` and `placements`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from traforo.domain import errors, ids, workers

MAX_WORKERS = 65_536
"""Most workers at once: whoever may register must not be able to fill the memory of the control plane."""
FORGET_AFTER_SECONDS = 8 * 24 * 3600.0
"""How long an unavailable worker stays known: its sandboxes (7 days at most, by default) have expired by then."""


class Event(enum.StrEnum):
    """What a change means, for the log."""

    REGISTERED = "registered"
    RENEWED = "renewed"
    CHANGED = "changed"
    MOVED = "moved"
    RETURNED = "returned"
    """It had been unavailable."""
    LEFT = "left"
    UNAVAILABLE = "unavailable"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Change:
    """What `apply` shall do. At most one member is put, and only members that exist are dropped."""

    event: Event
    worker_id: str
    put: workers.Member | None = None
    dropped: tuple[str, ...] = ()
    facts_changed: bool = True
    """False when nothing but the lease is new: such a change may be written later, with others."""


@dataclass(slots=True)
class State:
    """Every known worker, by id and by the hash of its host name. Changed by `apply` and by nothing else."""

    members: dict[str, workers.Member] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)
    unavailable: set[str] = field(default_factory=set)
    """Workers whose lease was seen to have passed."""


def register(state: State, worker: workers.Worker, live_sandboxes: int, *, now: float, ttl: float) -> Change:
    """Decide on a registration, which is also the heartbeat. O(1).

    Raises `Conflict` when a live worker of another id has the host name, `NoCapacity` when there are too many workers.
    """
    digest = ids.worker_hash(worker.hostname)
    dropped = _holders_to_drop(state, worker, digest, now)
    known = state.members.get(worker.worker_id)
    if known is None and len(state.members) - len(dropped) >= MAX_WORKERS:
        raise errors.NoCapacity(f"cannot register a worker: {MAX_WORKERS} are registered", resource="workers")
    registered_at = now if known is None else known.registered_at
    lease = workers.Lease(heartbeat_at=now, expires_at=now + ttl, live_sandboxes=live_sandboxes)
    return Change(
        event=_registration(known, worker, now),
        worker_id=worker.worker_id,
        put=workers.Member(worker=worker, hash=digest, registered_at=registered_at, lease=lease),
        dropped=dropped,
        facts_changed=known is None or known.worker != worker or bool(dropped),
    )


def _holders_to_drop(state: State, worker: workers.Worker, digest: str, now: float) -> tuple[str, ...]:
    holder = state.by_hash.get(digest)
    if holder is None or holder == worker.worker_id:
        return ()
    if state.members[holder].live(now):
        raise errors.Conflict(
            f"cannot register worker {worker.worker_id!r}: worker {holder!r} is live under the same host name",
            hint="give each worker a host name of its own, or wait until the other's lease ends",
            hostname=worker.hostname,
        )
    return (holder,)


def _registration(known: workers.Member | None, worker: workers.Worker, now: float) -> Event:
    if known is None:
        return Event.REGISTERED
    if known.worker.base_url != worker.base_url:
        return Event.MOVED
    if known.worker != worker:
        return Event.CHANGED
    return Event.RENEWED if known.live(now) else Event.RETURNED


def deregister(state: State, worker_id: str, base_url: str) -> Change | None:
    """Decide on a worker that leaves; None when it is not known.

    Nor is one known by this id that registered from elsewhere: it came later, or was never meant.
    """
    member = state.members.get(worker_id)
    if member is None or member.worker.base_url != base_url:
        return None
    return Change(Event.LEFT, worker_id, dropped=(worker_id,))


def sweep(state: State, *, now: float) -> Sequence[Change]:
    """Return what the passing of time has changed: leases that ended, and workers not heard of for too long."""
    changes = []
    for worker_id, member in state.members.items():
        if now >= member.lease.expires_at + FORGET_AFTER_SECONDS:
            changes.append(Change(Event.FORGOTTEN, worker_id, dropped=(worker_id,)))
        elif not member.live(now) and worker_id not in state.unavailable:
            changes.append(Change(Event.UNAVAILABLE, worker_id, facts_changed=False))
    return changes


def apply(state: State, change: Change) -> None:
    """Carry out a change. O(1)."""
    for worker_id in change.dropped:
        gone = state.members.pop(worker_id)
        state.by_hash.pop(gone.hash, None)
        state.unavailable.discard(worker_id)
    if change.event is Event.UNAVAILABLE:
        state.unavailable.add(change.worker_id)
    if (member := change.put) is not None:
        worker_id = member.worker.worker_id
        if (known := state.members.get(worker_id)) is not None and known.hash != member.hash:
            state.by_hash.pop(known.hash, None)
        state.members[worker_id] = member
        state.by_hash[member.hash] = worker_id
        state.unavailable.discard(worker_id)


def restore(members: Iterable[workers.Member], *, now: float, ttl: float) -> State:
    """Rebuild the state from records of an earlier process.

    A lease never lasts longer than a new one would, so that a clock that was set back does not keep a dead worker live.
    """
    state = State()
    for member in members:
        lease = dataclasses.replace(member.lease, expires_at=min(member.lease.expires_at, now + ttl))
        put = dataclasses.replace(member, lease=lease)
        apply(state, Change(Event.RENEWED, put.worker.worker_id, put=put))
    return state


def owner(state: State, digest: str, *, now: float) -> workers.Member:
    """Return the live worker whose sandboxes carry a hash. Raises `NotFound` or `WorkerUnavailable`. O(1)."""
    worker_id = state.by_hash.get(digest)
    if worker_id is None:
        raise errors.NotFound("no worker owns this sandbox", kind="worker", id=digest)
    member = state.members[worker_id]
    if not member.live(now):
        raise errors.WorkerUnavailable(
            f"cannot reach worker {worker_id!r}: its lease ended", reason="lease_expired", worker_id=worker_id
        )
    return member
