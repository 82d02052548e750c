"""`traforo stats`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from traforo.cli import interrupts, meters, names, options, printers

if TYPE_CHECKING:
    from traforo.sdk import Client, Metrics

COLUMNS = ("id", "cpu", "cpu time", "memory", "limit", "peak", "disk", "limit", "pids", "received", "sent")
SECONDS = 2.0


def stats(
    *sandboxes: options.SandboxId,
    follow: options.Follow = False,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Print what sandboxes use.

    Of processors, where 100 % is one of them, memory, disk, processes and network; of all your sandboxes that run, or
    of those that are named.

    Args:
        sandboxes: Ids of the sandboxes [default: all that run].
        follow: Print it again every two seconds, until Ctrl-C.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with interrupts.handled(), Client(url) as client:
        try:
            while True:
                found = _measured(client, sandboxes)
                if json:
                    printers.document({"sandboxes": [{"sandbox_id": i, **results.as_json(m.now)} for i, m in found]})
                else:
                    printers.table(COLUMNS, [_row(sandbox_id, metrics) for sandbox_id, metrics in found])
                if not follow:
                    return 0
                time.sleep(SECONDS)
        except interrupts.Interrupted as error:
            return error.exit_code


def _measured(client: Client, named: Sequence[str]) -> list[tuple[str, Metrics]]:
    from traforo.sdk import Sandbox, errors

    found = []
    for sandbox_id in named or [info.sandbox_id for info in Sandbox.list(state="running", client=client)]:
        try:
            sandbox = names.sandbox(sandbox_id, client)
            found.append((sandbox.id, sandbox.metrics()))
        except (errors.NotFound, errors.Conflict, errors.Lost):
            if named:
                raise
    return found


def _row(sandbox_id: str, metrics: Metrics) -> tuple[object, ...]:
    now = metrics.now
    if now is None:  # it has ended
        return (names.short(sandbox_id), *[None] * (len(COLUMNS) - 1))

    def size(value: int | None) -> str | None:
        return None if value is None else meters.amount(value)

    return (
        names.short(sandbox_id),
        None if now.cpu_percent is None else f"{now.cpu_percent:.1f} %",
        None if now.cpu_seconds is None else f"{now.cpu_seconds:.1f} s",
        size(now.memory_bytes),
        size(now.memory_limit_bytes),
        size(now.memory_peak_bytes),
        size(now.disk_bytes),
        size(now.disk_limit_bytes),
        now.pids if now.pids_limit is None else f"{now.pids} of {now.pids_limit}",
        size(now.network_received_bytes),
        size(now.network_sent_bytes),
    )
