"""What sandboxes use: measured when somebody asks, and every ten seconds for a while after that.

Nobody who does not ask costs anything. What was measured goes with the entry of the sandbox; one timer serves all of
them. It knows nothing of HTTP and decides about no sandbox.
"""

from __future__ import annotations

import asyncio

from traforo.domain import clocks, errors, specs
from traforo.telemetry import logs
from traforo.worker import tasks
from traforo.worker.capacity import samples
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

INTERVAL_SECONDS = 10.0
"""Between two samples."""
INTEREST_SECONDS = 300.0
"""How long samples are taken after somebody asked."""
PATIENCE_SECONDS = 5.0
"""Longest that a measurement may take."""
_MIB = 1 << 20


class Usages:
    """Measures the sandboxes of one worker. Belongs to one event loop; `close` it."""

    def __init__(self, clock: clocks.Clock) -> None:
        self._clock = clock
        self._watched: dict[str, tuple[entries.Entry, float]] = {}
        self._tasks = tasks.Tasks()
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None
        self._closed = False
        self._log = logs.get(__name__)

    async def now(self, entry: entries.Entry) -> samples.Sample | None:
        """Measure a sandbox, and go on measuring it for a while; None where it does not run."""
        if entry.running is None:
            return None
        self._watch(entry)
        taken = await self._measure(entry)
        if taken is not None and entry.history is not None and not entry.history.rows:
            entry.history.add(taken)
        return taken

    def series(self, entry: entries.Entry, since: float) -> list[samples.Sample]:
        """Return what was measured every ten seconds after `since` (Unix seconds), oldest first."""
        return [] if entry.history is None else list(entry.history.since(since))

    async def close(self) -> None:
        """Measure no more."""
        self._closed = True
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.drain()

    def _watch(self, entry: entries.Entry) -> None:
        self._watched[entry.text_id] = (entry, self._clock.monotonic() + INTEREST_SECONDS)
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._round is None or self._round.done():
            self._round = self._tasks.spawn(self.sample())
        if self._watched and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._ring)

    async def sample(self) -> None:
        """Measure everything that is watched, once, and stop watching what nobody asks about any more."""
        now = self._clock.monotonic()
        for text_id, (entry, until) in list(self._watched.items()):
            if until <= now or entry.running is None:
                self._watched.pop(text_id, None)
            elif (taken := await self._measure(entry)) is not None and entry.history is not None:
                entry.history.add(taken)

    async def _measure(self, entry: entries.Entry) -> samples.Sample | None:
        if entry.running is None:
            return None
        try:
            found = await asyncio.wait_for(entry.running.usage(), PATIENCE_SECONDS)
        except (errors.TraforoError, TimeoutError) as error:  # it is dying
            self._log.debug("usage_unknown", sandbox_id=entry.text_id, error=str(error))
            return None
        if entry.history is None:
            entry.history = samples.History()
        now = self._clock.now()
        percent = entry.history.use(found.cpu_seconds, self._clock.monotonic(), now - entry.created_at)
        return _of(found, now, percent, entry.spec.resources)


def _of(found: contract.Usage, now: float, percent: float | None, resources: specs.Resources) -> samples.Sample:
    limit = found.disk_limit_bytes
    return samples.Sample(
        at=now,
        cpu_seconds=found.cpu_seconds,
        cpu_percent=percent,
        memory_bytes=found.memory_bytes,
        memory_peak_bytes=found.memory_peak_bytes,
        disk_bytes=found.disk_bytes,
        disk_limit_bytes=resources.disk_mib * _MIB if limit is None else limit,
        pids=found.pids,
        network_received_bytes=found.network_received_bytes,
        network_sent_bytes=found.network_sent_bytes,
    )
