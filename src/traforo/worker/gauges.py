"""Numbers about sandboxes for the metrics: what is allocated, how quick starts and first results are.

Looks up labelled series once and keeps them, since every create passes here. It measures nothing itself.
"""

from __future__ import annotations

from typing import Any

from traforo.domain import states
from traforo.telemetry import labels, metrics
from traforo.worker.capacity import admissions
from traforo.worker.sandboxes import entries


class Gauges:
    """The part of the worker's metrics that the supervisor writes."""

    def __init__(self, worker: metrics.WorkerMetrics) -> None:
        self._metrics = worker
        self._ready: dict[tuple[str, str, float], Any] = {}
        self._target = 0

        self._ended = {
            reason: worker.worker_sandboxes_ended_total.labels(reason=reason.value) for reason in states.EndReason
        }

    def totals(self, host: admissions.Host) -> None:
        """Tell what this worker may give away."""
        self._metrics.worker_cpu_total_cores.set(host.cpu_milli / admissions.MILLI)
        self._metrics.worker_memory_total_mib.set(host.memory_mib)
        self.warm(0, 0)

    def warm(self, ready: int, target: int | None = None) -> None:
        """Tell how many sandboxes wait ahead of demand, and if it has changed how many should."""
        self._target = self._target if target is None else target
        self._metrics.worker_sandboxes_warm_ready.set(ready)
        self._metrics.worker_sandboxes_warm_target.set(self._target)
        self._metrics.worker_sandboxes_warm_deficit.set(max(0, self._target - ready))

    def warm_failed(self, reason: str) -> None:
        """Count a sandbox that could not be made ahead of demand."""
        self._metrics.worker_warmup_failures_total.labels(reason=reason).inc()

    def refresh(self, ledger: admissions.Ledger) -> None:
        """Tell what is allocated now."""
        held = ledger.allocated
        self._metrics.worker_sandboxes_live.set(ledger.live)
        self._metrics.worker_cpu_allocated_cores.set(held.cpu_milli / admissions.MILLI)
        self._metrics.worker_memory_allocated_mib.set(held.memory_mib)

    def ready(self, entry: entries.Entry, seconds: float) -> None:
        """Count one start that went well."""
        key = (entry.spec.virtualization, entry.start_type.value, entry.spec.resources.cpu)
        series = self._ready.get(key)
        if series is None:
            series = self._metrics.worker_sandbox_ready_duration_seconds.labels(
                virtualization=key[0], start_type=key[1], cpu=labels.cpu(key[2])
            )
            if len(self._ready) < 1000:  # callers choose cpu freely
                self._ready[key] = series
        series.observe(seconds)
        if entry.start_type is states.StartType.WARM:
            self._metrics.worker_warm_hit_total.inc()
        else:
            self._metrics.worker_warm_miss_total.inc()

    def ended(self, reason: states.EndReason) -> None:
        """Count one end."""
        self._ended[reason].inc()

    def first_exec(self, entry: entries.Entry, seconds: float) -> None:
        """Count the time to the first result of a sandbox."""
        self._metrics.worker_sandbox_first_exec_tti_seconds.labels(start_type=entry.start_type.value).observe(seconds)
