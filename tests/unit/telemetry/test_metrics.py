import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from traforo.telemetry import labels, metrics

KINDS = [metrics.WorkerMetrics, metrics.ControlMetrics]


def samples(registry: prometheus_client.CollectorRegistry) -> dict[str, float]:
    text = metrics.render(registry).decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_rendered_under_its_attribute(kind: type[metrics.ProcessMetrics]) -> None:
    """One name for one thing: in code, in /metrics and in the reference."""
    measured = kind(prometheus_client.CollectorRegistry())
    assert [
        one.name for one in measured.declared() if one.name != "service_auth_mode" and not hasattr(measured, one.name)
    ] == []
    text = metrics.render(measured.registry).decode()
    assert [one.name for one in measured.declared() if f"# TYPE {one.name} {one.kind}\n" not in text] == []


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_allowed_and_help_is_there(kind: type[metrics.ProcessMetrics]) -> None:
    """The label policy holds for every declaration."""
    measured = kind(prometheus_client.CollectorRegistry())
    for one in measured.declared():
        assert set(one.labels) <= labels.ALLOWED
        assert one.help.endswith(".")


def test_label_that_is_not_allowed_cannot_be_declared() -> None:
    """The check runs where a metric is declared, not where it is used."""

    class Wrong(metrics.Declarations):
        def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
            super().__init__(registry)
            self.by_sandbox = self._counter("by_sandbox_total", "Each sandbox.", ["sandbox_id"])

    with pytest.raises(ValueError, match="sandbox_id"):
        Wrong(prometheus_client.CollectorRegistry())


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_names_what_was_never_updated(kind: type[metrics.ProcessMetrics]) -> None:
    """A metric that is declared and never updated can be found, a gauge that is 0 included."""
    measured = kind(prometheus_client.CollectorRegistry())
    names = {one.name for one in measured.declared()}
    assert set(measured.untouched()) == names
    measured.auth_mode("dev")
    measured.request_done(200, 0.001)
    measured.auth_failed("expired")
    touched = {
        "service_auth_mode",
        f"{kind.process}_http_request_duration_seconds",
        f"{kind.process}_auth_failures_total",
    }
    assert set(measured.untouched()) == names - touched


def test_every_kind_of_update_counts() -> None:
    """Set, up, down, with labels and without."""
    measured = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
    measured.worker_sandboxes_live.inc()
    measured.worker_sandboxes_live.dec()
    measured.worker_sandboxes_warm_ready.set(0)
    measured.worker_exec_start_duration_seconds.observe(0.0)
    measured.worker_exec_duration_seconds.labels(result="exited").observe(0.002)
    measured.worker_warm_miss_total.inc()
    touched = {
        "worker_sandboxes_live",
        "worker_sandboxes_warm_ready",
        "worker_exec_start_duration_seconds",
        "worker_exec_duration_seconds",
        "worker_warm_miss_total",
    }
    assert {one.name for one in measured.declared()} - set(measured.untouched()) == touched


@pytest.mark.parametrize("mode, expected", [("prod", 1.0), ("dev", 0.0)])
def test_auth_mode_is_a_number(mode: str, expected: float) -> None:
    """An alert can be raised on a process that asks for no credential."""
    measured = metrics.ControlMetrics(prometheus_client.CollectorRegistry())
    measured.auth_mode(mode)
    assert samples(measured.registry)["service_auth_mode"] == expected


def test_buckets_resolve_from_half_a_millisecond_to_a_minute() -> None:
    """Neither a fork nor a long poll falls off the scale."""
    assert (metrics.BUCKETS[0], metrics.BUCKETS[-1]) == (0.0005, 60)
    assert list(metrics.BUCKETS) == sorted(set(metrics.BUCKETS))
    assert max(after / before for before, after in zip(metrics.BUCKETS, metrics.BUCKETS[1:], strict=False)) <= 3


def test_two_processes_in_one_do_not_share_a_registry() -> None:
    """Control plane and worker of `traforo up` measure apart."""
    worker = metrics.WorkerMetrics(metrics.new_registry())
    control = metrics.ControlMetrics(metrics.new_registry())
    worker.auth_mode("prod")
    assert samples(control.registry)["service_auth_mode"] == 0.0


def test_registry_of_a_process_shows_the_process() -> None:
    """Memory and descriptors of the process itself are there."""
    assert samples(metrics.new_registry())["process_resident_memory_bytes"] > 0


def test_metrics_of_guests_stay_away_until_a_driver_needs_them() -> None:
    """No worker shows a metric that nothing updates."""
    names = {one.name for one in metrics.WorkerMetrics(prometheus_client.CollectorRegistry()).declared()}
    guests = metrics.GuestMetrics(prometheus_client.CollectorRegistry())
    assert names & {one.name for one in guests.declared()} == set()
