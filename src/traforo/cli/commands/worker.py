"""`traforo worker`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from traforo.cli import flags, processes
from traforo.settings import worker as settings


def _run(given: Mapping[str, object], file: Path | None) -> int:
    from traforo.worker import processes as worker_processes

    return processes.serve("worker", settings.WorkerSettings, given, file, worker_processes.serve)


worker = flags.command(
    settings.WorkerSettings,
    _run,
    """Run a worker.

    Each flag has a variable, `TRAFORO_WORKER_` and its name, and a key in the file; a flag wins over the variable, the
    variable over the file. Secrets have no flag: `TRAFORO_JWT_SECRET`.
    """,
)
