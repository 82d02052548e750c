"""Which runtime provides which virtualization: one table, the only place that names a driver.

A driver is a package below `traforo.worker.runtimes` whose module `drivers` has `make(settings)`. It is imported when
it is wanted, so that one that cannot run here costs the others nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker.runtimes import contract

TABLE: Mapping[str, str] = {"container": "traforo.worker.runtimes.container.drivers"}
"""Module of the driver by virtualization."""


def make(settings: settings_worker.WorkerSettings) -> dict[str, contract.Runtime]:
    """Make the runtimes of a worker, by virtualization. Blocks: drivers look at the host.

    Raises `InvalidRequest` for a virtualization that is not in the table, `StartFailed` if the host cannot run it.
    """
    name = settings.virtualization
    if name not in TABLE:
        raise errors.InvalidRequest(
            f"cannot provide virtualization {name!r}: there are {', '.join(sorted(TABLE))}", field="virtualization"
        )
    runtime: contract.Runtime = importlib.import_module(TABLE[name]).make(settings)
    return {name: runtime}
