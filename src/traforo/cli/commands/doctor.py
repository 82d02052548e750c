"""`traforo doctor`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from traforo.cli import options, printers


def doctor(*, json: options.Json = False) -> int:
    """Say what this machine can run, and what it lacks.

    Each line is one finding: whether it is well, what was found, and what a lack costs. The exit code is 1 only if no
    sandbox can run here.

    Args:
        json: Print JSON.
    """
    from traforo.worker import doctors

    findings = _records(doctors.report())
    if json:
        printers.document({"findings": findings})
    else:
        printers.table(
            ("finding", "", "detail"), [(f["name"], "ok" if f["ok"] else "no", _detail(f)) for f in findings]
        )
    return 0 if can_run(findings) else 1


def _records(findings: Iterable[Any]) -> list[dict[str, Any]]:
    return [
        dataclasses.asdict(f) if dataclasses.is_dataclass(f) and not isinstance(f, type) else dict(f) for f in findings
    ]


def can_run(findings: Iterable[dict[str, Any]]) -> bool:
    """Return whether at least one runtime works."""
    runtimes = [finding["ok"] for finding in findings if str(finding["name"]).startswith("runtime")]
    return any(runtimes) if runtimes else True


def _detail(finding: dict[str, Any]) -> str:
    """Return what was found, and behind it what a lack costs: one column, as either may be long."""
    return ": ".join(filter(None, (finding["detail"], None if finding["ok"] else finding["cost"])))
