"""`traforo control`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from traforo.cli import flags, processes
from traforo.settings import control as settings


def _run(given: Mapping[str, object], file: Path | None) -> int:
    from traforo.control import processes as control_processes

    return processes.serve("control", settings.ControlSettings, given, file, control_processes.serve)


control = flags.command(
    settings.ControlSettings,
    _run,
    """Run a control plane.

    Each flag has a variable, `TRAFORO_CONTROL_` and its name, and a key in the file; a flag wins over the variable, the
    variable over the file. Secrets have no flag: `TRAFORO_JWT_SECRET`.
    """,
)
