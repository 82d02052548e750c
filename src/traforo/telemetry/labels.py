"""Which labels a metric may have: few names, and only values whose number is bounded.

Every label multiplies the series that a monitoring system stores. What has one value for each sandbox, exec, client or
image (`sandbox_id`, `exec_id`, `client_id`, `image`, `full_image`) is never a label; it belongs into the log.
"""

from __future__ import annotations

from collections.abc import Iterable

ALLOWED = frozenset(
    {"worker_id", "virtualization", "cpu", "start_type", "result", "status_code", "reason", "image_family"}
)
"""Every label name there is."""

_CPU_STEPS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def check(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names if every one is allowed, else raise ValueError. Runs where a metric is declared."""
    found = tuple(names)
    if unknown := [name for name in found if name not in ALLOWED]:
        raise ValueError(f"cannot declare a metric: label {unknown[0]!r} is not one of {', '.join(sorted(ALLOWED))}")
    return found


def cpu(value: float) -> str:
    """Return the value of label `cpu`: the smallest step that holds this many processors, so that there are eleven."""
    return next((f"{step:g}" for step in _CPU_STEPS if value <= step), "more")
