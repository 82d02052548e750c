"""The parts of one worker put together: services made, what lives adopted, everything closed in the reverse order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from traforo.api import replays, tokens
from traforo.domain import clocks
from traforo.settings import worker
from traforo.telemetry import metrics
from traforo.worker import admissions, contexts, doors, execs, files, gauges, holdings, journals, supervisors
from traforo.worker.runtimes import contract

JOURNAL = "journal.sqlite3"
"""Name of the journal in the state directory."""
EXECS = "execs"
"""Name of the directory of exec logs in the state directory."""


@dataclass(slots=True)
class Ending:
    """How the sandboxes are left. A worker that fails before it serves leaves those of an earlier one alone."""

    keep: bool = True


async def assemble(
    settings: worker.WorkerSettings,
    host: admissions.Host,
    runtimes: Mapping[str, contract.Runtime],
    images: holdings.Images,
    clock: clocks.Clock,
    stack: contextlib.AsyncExitStack,
    ending: Ending,
) -> contexts.Context:
    """Make the services, adopt what lives, and have all of it closed in the reverse order."""
    measured = metrics.WorkerMetrics(metrics.new_registry())
    journal = journals.Journal(settings.state_dir / JOURNAL, clock, retention=settings.ended_retention_seconds)
    left = await journal.open()
    stack.push_async_callback(journal.close)
    runs = execs.Execs(
        settings.state_dir / EXECS, clock=clock, journal=journal, metrics=measured, limits=execs.limits(settings)
    )
    runs.restore(left.execs)
    shown = gauges.Gauges(measured)
    shown.totals(host)
    supervisor = supervisors.Supervisor(
        settings=settings,
        ledger=admissions.Ledger(_caps(settings, host)),
        runtimes=runtimes,
        images=images,
        execs=runs,
        journal=journal,
        gauges=shown,
        clock=clock,
    )

    async def close() -> None:
        await supervisor.close(keep=ending.keep)

    stack.push_async_callback(close)
    guard = replays.ReplayGuard(on_use=journal.put_token)
    guard.restore((await supervisor.start(left)).items(), clock.now())
    await runs.sweep([entry.text_id for entry in supervisor.roster])
    authority = tokens.Authority(settings.auth, clock)
    return contexts.Context(
        settings=settings,
        place=contexts.Place(settings.base_url),
        host=host,
        clock=clock,
        supervisor=supervisor,
        execs=runs,
        files=files.Files(),
        door=doors.Door(authority=authority, guard=guard, worker_id=settings.worker_id, clock=clock),
        authority=authority,
        metrics=measured,
    )


def _caps(settings: worker.WorkerSettings, host: admissions.Host) -> admissions.Caps:
    return admissions.caps(
        host,
        live=settings.live_limit,
        cpu_overcommit=settings.cpu_overcommit,
        memory_overcommit=settings.memory_overcommit,
        disk_overcommit=settings.disk_overcommit,
    )
