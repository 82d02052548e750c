"""The parts of one worker put together: services made, what lives adopted, everything closed in the reverse order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from traforo.api import replays, tokens
from traforo.domain import clocks
from traforo.settings import worker
from traforo.telemetry import metrics
from traforo.worker import gauges
from traforo.worker.capacity import admissions, usages
from traforo.worker.execs import execs
from traforo.worker.files import files
from traforo.worker.interpreters import services
from traforo.worker.journal import journals
from traforo.worker.outputs import chronicles
from traforo.worker.ports import gates, proxies, publications
from traforo.worker.routes import contexts, doors
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import holdings, supervisors

JOURNAL = "journal.sqlite3"
"""Name of the journal in the state directory."""
EXECS = "execs"
"""Name of the directory of exec logs in the state directory."""
PUBLISHED = "ports.json"
"""Name of the file of public ports in the state directory."""


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
    coders = services.Interpreters(runs, clock, settings.prepare_modules)
    await coders.load()
    runs.claim = coders.claim
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

    supervisor.warm = coders.warm_up

    async def close() -> None:
        await supervisor.close(keep=ending.keep)

    stack.push_async_callback(close)
    stack.push_async_callback(coders.close)
    guard = replays.ReplayGuard(on_use=journal.put_token)
    guard.restore((await supervisor.start(left)).items(), clock.now())
    await coders.adopted()
    await runs.sweep([entry.text_id for entry in supervisor.roster])
    measuring = usages.Usages(clock)
    stack.push_async_callback(measuring.close)
    authority = tokens.Authority(settings.auth, clock)
    place = contexts.Place(settings.base_url)
    published = publications.Publications(settings.state_dir / PUBLISHED, _alive(supervisor))
    await published.load()
    ports = proxies.Proxy(
        settings=settings,
        gate=gates.Gate(authority, clock),
        published=published,
        roster=supervisor.roster,
        measured=measured,
        base_url=lambda: place.base_url,
    )
    stack.push_async_callback(ports.close)
    kept = files.Files()
    stack.push_async_callback(kept.close)
    return contexts.Context(
        settings=settings,
        place=place,
        host=host,
        clock=clock,
        supervisor=supervisor,
        execs=runs,
        interpreters=coders,
        files=kept,
        door=doors.Door(authority=authority, guard=guard, worker_id=settings.worker_id, clock=clock),
        authority=authority,
        ports=ports,
        metrics=measured,
        usages=measuring,
        chronicles=chronicles.Chronicles(runs, clock),
    )


def _alive(supervisor: supervisors.Supervisor) -> Callable[[str], bool]:
    def alive(sandbox_id: str) -> bool:
        entry = supervisor.roster.get(sandbox_id)
        return entry is not None and entry.live

    return alive


def _caps(settings: worker.WorkerSettings, host: admissions.Host) -> admissions.Caps:
    return admissions.caps(
        host,
        live=settings.live_limit,
        cpu_overcommit=settings.cpu_overcommit,
        memory_overcommit=settings.memory_overcommit,
        disk_overcommit=settings.disk_overcommit,
    )
