"""What the parts of the supervisor share: the books of this worker's sandboxes, and those who want to know.

The books are kept by `starts`, `ends` and `supervisors` and by nobody else; an entry changes its state through `move`
alone, so that none can get into a state that the table does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from traforo.domain import clocks, states
from traforo.worker import gauges, tasks
from traforo.worker.capacity import admissions
from traforo.worker.journal import journals, records
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, leases, lifecycles, repeats, rosters


class Images(Protocol):
    """Where images come from."""

    async def resolve(self, reference: str) -> contract.Rootfs:
        """Return an image, ready to be mounted. Raises `NotFound`, `InvalidRequest`."""
        ...


class Execs(Protocol):
    """Who has to be told about the life of a sandbox."""

    async def adopt(self, entry: entries.Entry) -> None:
        """Take over the execs of a sandbox that outlived a worker."""
        ...

    async def end(self, entry: entries.Entry) -> None:
        """End every exec of a sandbox that is dead."""
        ...

    async def forget(self, entry: entries.Entry) -> None:
        """Drop records and output of a sandbox that can no longer be read."""
        ...

    async def close(self) -> None:
        """Stop watching execs; they go on where their sandboxes do."""
        ...


@dataclass(frozen=True, slots=True)
class Holdings:
    """The books, and the services behind them. Belongs to one event loop."""

    worker: str
    """Hash of this worker's host name, which is part of its sandboxes' ids."""
    ledger: admissions.Ledger
    roster: rosters.Roster
    expiries: leases.Deadlines
    """When each live sandbox expires."""
    idles: leases.Deadlines
    """When to look whether a sandbox with an idle limit is idle, in monotonic seconds."""
    unproven: leases.Deadlines
    """When reservations end whose sandbox could not be proven dead: its deadline is the proof that is left."""
    repeats: repeats.Repeats
    tasks: tasks.Tasks
    runtimes: Mapping[str, contract.Runtime]
    """By virtualization."""
    images: Images
    execs: Execs
    journal: journals.Journal
    gauges: gauges.Gauges
    clock: clocks.Clock


def move(entry: entries.Entry, event: lifecycles.Event, reason: states.EndReason | None = None) -> None:
    """Change the state of an entry as the table says. Raises `Conflict` where it does not."""
    life = lifecycles.step(lifecycles.Life(entry.state, entry.reason), event, reason)
    entry.state, entry.reason = life.state, life.reason


def record(entry: entries.Entry, oom_kills: int = 0) -> records.SandboxRecord:
    """Return what the journal keeps of an entry as it is now."""
    return records.SandboxRecord(
        sandbox_id=entry.text_id,
        spec=entry.spec,
        owner=entry.owner,
        state=entry.state,
        created_at=entry.created_at,
        expires_at=entry.expires_at,
        reason=entry.reason,
        ended_at=entry.ended_at,
        oom_kills=oom_kills,
        start_type=entry.start_type,
        jti=entry.jti,
        jti_expires_at=entry.jti_expires_at,
        image=entry.rootfs,
        idle_seconds=entry.idle_seconds,
        last_activity_at=entry.last_activity_at,
        events=entry.happenings.with_record(),
    )
