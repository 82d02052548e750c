"""Every metric there is, one attribute each, named as Prometheus shows it.

A process makes one registry and one of these records and hands them down; nothing is declared elsewhere or registered
globally. A metric that is declared must be updated by running code: `untouched` names those that never were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import prometheus_client
from prometheus_client import exposition

from traforo.telemetry import labels

CONTENT_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4
"""Media type of what `render` returns."""
BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60),
)
"""Upper bounds in seconds of every duration: from half a millisecond (a fork) to a minute (a long poll)."""
Metric = TypeVar("Metric")

_RETRIES = (0, 1, 2, 3, 5, 10)


class _Touch:
    """Remembers whether a metric was ever updated, which a gauge at 0 does not show."""

    touched: bool = False


class Gauge(prometheus_client.Gauge, _Touch):
    """A value that goes up and down."""

    def set(self, value: float) -> None:
        """Set the value."""
        self.touched = True
        super().set(value)

    def inc(self, amount: float = 1) -> None:
        """Add to the value."""
        self.touched = True
        super().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Take from the value."""
        self.touched = True
        super().dec(amount)


@dataclass(frozen=True, slots=True)
class Declared:
    """What a reader has to know of one metric."""

    name: str
    kind: str
    """`gauge`, `counter` or `histogram`."""
    labels: tuple[str, ...]
    help: str


class Declarations:
    """A set of metrics on one registry."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        self.registry = registry
        self._metrics: dict[str, Any] = {}

    def declared(self) -> tuple[Declared, ...]:
        """Return every metric, in order of declaration."""
        return tuple(
            Declared(name, metric._type, metric._labelnames, metric._documentation)  # noqa: SLF001 - no public reader
            for name, metric in self._metrics.items()
        )

    def untouched(self) -> list[str]:
        """Return the names of the metrics that were never updated."""
        return [name for name, metric in self._metrics.items() if not _was_touched(metric)]

    def _gauge(self, name: str, text: str, names: Iterable[str] = ()) -> Gauge:
        return self._keep(name, Gauge(name, text, labels.check(names), registry=self.registry))

    def _counter(self, name: str, text: str, names: Iterable[str] = ()) -> prometheus_client.Counter:
        return self._keep(name, prometheus_client.Counter(name, text, labels.check(names), registry=self.registry))

    def _histogram(
        self, name: str, text: str, names: Iterable[str] = (), buckets: Sequence[float] = BUCKETS
    ) -> prometheus_client.Histogram:
        metric = prometheus_client.Histogram(
            name, text, labels.check(names), registry=self.registry, buckets=tuple(buckets)
        )
        return self._keep(name, metric)

    def _keep(self, name: str, metric: Metric) -> Metric:
        self._metrics[name] = metric
        return metric


class ProcessMetrics(Declarations):
    """What control plane and worker both measure; `process` is the first part of the names."""

    process: ClassVar[str]

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)
        self._requests: dict[int, prometheus_client.Histogram] = {}
        self.service_auth_mode = self._gauge(
            "service_auth_mode", "1 in prod mode, 0 in dev mode, which asks for no credential."
        )
        self._request_duration = self._histogram(
            f"{self.process}_http_request_duration_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["status_code"],
        )
        self._auth_failures = self._counter(
            f"{self.process}_auth_failures_total", "Requests whose credential was refused, by reason.", ["reason"]
        )

    def auth_mode(self, mode: str) -> None:
        """Tell the mode, `prod` or `dev`."""
        self.service_auth_mode.set(1 if mode == "prod" else 0)

    def request_done(self, status: int, seconds: float) -> None:
        """Count one answered request."""
        child = self._requests.get(status)
        if child is None:
            child = self._requests[status] = self._request_duration.labels(status_code=str(status))
        child.observe(seconds)

    def auth_failed(self, reason: str) -> None:
        """Count one refused credential; `reason` is one of `traforo.api.claims.REASONS`, or `forbidden`."""
        self._auth_failures.labels(reason=reason).inc()


class WorkerMetrics(ProcessMetrics):
    """What a worker measures."""

    process = "worker"

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)
        self.worker_http_request_duration_seconds = self._request_duration
        self.worker_auth_failures_total = self._auth_failures
        self.worker_cpu_total_cores = self._gauge("worker_cpu_total_cores", "Processors that the worker may give away.")
        self.worker_cpu_allocated_cores = self._gauge(
            "worker_cpu_allocated_cores", "Sum of the cpu ceilings of live sandboxes."
        )
        self.worker_memory_total_mib = self._gauge(
            "worker_memory_total_mib", "Memory that the worker may give away, in MiB."
        )
        self.worker_memory_allocated_mib = self._gauge(
            "worker_memory_allocated_mib", "Sum of the memory ceilings of live sandboxes, in MiB."
        )
        self.worker_sandboxes_live = self._gauge("worker_sandboxes_live", "Sandboxes that hold resources now.")
        self.worker_sandboxes_warm_ready = self._gauge(
            "worker_sandboxes_warm_ready", "Sandboxes that were started ahead of demand and wait for a claim."
        )
        self.worker_sandboxes_warm_target = self._gauge(
            "worker_sandboxes_warm_target", "Sandboxes that demand says should be waiting."
        )
        self.worker_sandboxes_warm_deficit = self._gauge(
            "worker_sandboxes_warm_deficit", "Waiting sandboxes that are missing to the target."
        )
        self.worker_sandbox_ready_duration_seconds = self._histogram(
            "worker_sandbox_ready_duration_seconds",
            "Seconds from an accepted create until a first command can start.",
            ["virtualization", "start_type", "cpu"],
        )
        self.worker_sandbox_first_exec_tti_seconds = self._histogram(
            "worker_sandbox_first_exec_tti_seconds",
            "Seconds from an accepted create to the first result of an exec, once for each sandbox.",
            ["start_type"],
        )
        self.worker_sandboxes_ended_total = self._counter(
            "worker_sandboxes_ended_total", "Sandboxes that ended, by reason.", ["reason"]
        )
        self.worker_port_requests_total = self._counter(
            "worker_port_requests_total",
            "Requests for ports of sandboxes: answered, refused here, failed behind, or abandoned by their sender.",
            ["result"],
        )
        self.worker_port_connections = self._gauge(
            "worker_port_connections", "Connections that are open into ports of sandboxes."
        )
        self.worker_port_tunnels = self._gauge(
            "worker_port_tunnels", "Upgraded connections, WebSockets among them, that are open into ports of sandboxes."
        )
        self.worker_exec_start_duration_seconds = self._histogram(
            "worker_exec_start_duration_seconds", "Seconds from an accepted exec until its process runs."
        )
        self.worker_exec_duration_seconds = self._histogram(
            "worker_exec_duration_seconds", "Seconds that an exec ran, by how it ended.", ["result"]
        )
        self.worker_warmup_failures_total = self._counter(
            "worker_warmup_failures_total",
            "Images that could not be made ready at start, and sandboxes ahead of demand, by reason.",
            ["reason"],
        )
        self.worker_warm_hit_total = self._counter("worker_warm_hit_total", "Creates that claimed a waiting sandbox.")
        self.worker_warm_miss_total = self._counter("worker_warm_miss_total", "Creates that found none waiting.")


class GuestMetrics(Declarations):
    """What drivers measure that reach their guests over a network; declared only where such a driver is in use."""

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)
        self.worker_ssh_reconnects_total = self._counter(
            "worker_ssh_reconnects_total", "Sessions to a guest that broke and were opened again."
        )
        self.worker_network_ip_resolve_failures_total = self._counter(
            "worker_network_ip_resolve_failures_total",
            "Guests whose address could not be found, by reason.",
            ["reason"],
        )


class ControlMetrics(ProcessMetrics):
    """What a control plane measures."""

    process = "control"

    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        super().__init__(registry)
        self.control_http_request_duration_seconds = self._request_duration
        self.control_auth_failures_total = self._auth_failures
        self.control_placement_duration_seconds = self._histogram(
            "control_placement_duration_seconds", "Seconds that it took to choose a worker, by result.", ["result"]
        )
        self.control_placement_retry = self._histogram(
            "control_placement_retry",
            "How often each placed create had been placed before.",
            buckets=_RETRIES,
        )
        self.control_no_capacity_total = self._counter(
            "control_no_capacity_total",
            "Creates for which no worker was found, by reason.",
            ["status_code", "reason"],
        )


def render(registry: prometheus_client.CollectorRegistry) -> bytes:
    """Return everything in a registry in the text format of Prometheus; some collectors read /proc."""
    return exposition.generate_latest(registry)


def new_registry() -> prometheus_client.CollectorRegistry:
    """Make the registry of a process, with memory, processor time and descriptors of the process itself in it."""
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    prometheus_client.ProcessCollector(registry=registry)
    return registry


def _was_touched(metric: Any) -> bool:
    children = list(metric._metrics.values()) if metric._labelnames else [metric]  # noqa: SLF001 - no public reader
    return any(_child_was_touched(child) for child in children)


def _child_was_touched(child: Any) -> bool:
    if isinstance(child, Gauge):
        return child.touched
    if isinstance(child, prometheus_client.Histogram):
        return any(bucket.get() for bucket in child._buckets)  # noqa: SLF001 - no public reader
    return bool(child._value.get())  # noqa: SLF001 - no public reader
