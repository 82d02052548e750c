"""What room there is now, as a few lines of text for people and scripts: `GET /metrics/sandboxes`.

Counts of workers, one `name=value` a line, then a table with tabs: how many sandboxes each virtualization and hardware
SKU has room for. Numbers are those of the last heartbeats, and only workers whose lease holds count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from traforo.domain import clocks, workers

_HEADER = ("virtualization", "hardware_sku", "workers", "available")
_NO_SKU = "-"


def render(members: Sequence[workers.Member], now: float) -> str:
    """Write the snapshot; rows are sorted."""
    live = [member for member in members if member.live(now)]
    rooms: dict[tuple[str, str], list[int]] = defaultdict(list)
    for member in live:
        for virtualization in member.worker.virtualizations:
            rooms[virtualization, member.worker.hardware_sku or _NO_SKU].append(member.room)
    lines = [
        "# traforo sandbox availability",
        f"generated_at={clocks.rfc3339(now)}",
        f"workers_registered_total={len(members)}",
        f"workers_active_total={len(live)}",
        f"workers_unavailable_total={len(members) - len(live)}",
        f"live_sandboxes_total={sum(member.lease.live_sandboxes for member in live)}",
        f"available_sandboxes_total={sum(member.room for member in live)}",
        f"available_sandbox_kinds_total={sum(any(found) for found in rooms.values())}",
        "",
        "\t".join(_HEADER),
    ]
    lines += [f"{kind}\t{sku}\t{len(found)}\t{sum(found)}" for (kind, sku), found in sorted(rooms.items())]
    return "\n".join(lines) + "\n"
