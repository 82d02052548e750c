"""What an idle sandbox costs in memory: the kernel's own account before and after many of them.

MemAvailable is the figure that counts, since half of a sandbox is kernel memory that no process shows. It moves with
everything else on the machine, so the number of sandboxes has to be large, and the server's and the inits' proportional
set sizes stand beside it as a check.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from bench import answers, machines
from bench.clients import AsyncClient
from bench.contenders import MeasurementError
from bench.servers import Server

_CONCURRENCY = 8
_SETTLE_SECONDS = 2.0
_SMALL = {"image": "host", "cpu": 0.1, "memory_mib": 64, "disk_mib": 16}
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Idle sandboxes, all alive at once. Sizes in KiB for each sandbox."""

    asked: int
    live: int
    start_seconds: float
    available_kib: float
    """By how much MemAvailable went down."""
    server_kib: float
    """By how much the proportional set size of the server's own processes went up."""
    inits_kib: float
    """Proportional set size of the processes inside."""
    message: str = ""
    """The first failure, if there was one."""


def measure(server: Server, *, count: int) -> Memory:
    """Start `count` small sandboxes, let them idle, account, and delete them."""
    return asyncio.run(_measure(server, count))


async def _measure(server: Server, count: int) -> Memory:
    clients = [AsyncClient() for _ in range(_CONCURRENCY)]
    try:
        # The first few make what is made once: caches of the allocator, connections, imports.
        await _delete_all(clients, server, (await _create_all(clients, server, _CONCURRENCY))[0])
        await asyncio.sleep(_SETTLE_SECONDS)
        before, (server_before, _) = machines.available_bytes(), _set_sizes(server)
        start = time.perf_counter()
        ids, messages = await _create_all(clients, server, count)
        taken = time.perf_counter() - start
        await asyncio.sleep(_SETTLE_SECONDS)
        after, (server_after, inits) = machines.available_bytes(), _set_sizes(server)
        await _delete_all(clients, server, ids)
    finally:
        for client in clients:
            await client.close()
    live = max(len(ids), 1)
    return Memory(
        asked=count,
        live=len(ids),
        start_seconds=taken,
        available_kib=(before - after) / _KIB / live,
        server_kib=(server_after - server_before) / live,
        inits_kib=inits / live,
        message=messages[0] if messages else "",
    )


async def _create_all(clients: list[AsyncClient], server: Server, count: int) -> tuple[list[str], list[str]]:
    """Create up to `count`; the first refusal ends it."""
    ids: list[str] = []
    messages: list[str] = []
    remaining = iter(range(count))

    async def worker(client: AsyncClient) -> None:
        for _ in remaining:
            if messages:
                return
            try:
                sandbox = answers.created(await client.request("POST", f"{server.worker_url}/sandboxes", _SMALL))
            except MeasurementError as error:
                messages.append(str(error))
                return
            ids.append(sandbox["sandbox_id"])

    await asyncio.gather(*(worker(client) for client in clients))
    return ids, messages


async def _delete_all(clients: list[AsyncClient], server: Server, ids: list[str]) -> None:
    remaining = iter(ids)

    async def worker(client: AsyncClient) -> None:
        for ident in remaining:
            # A sandbox that will not go is ended with its server; the account has been made by then.
            with contextlib.suppress(MeasurementError):
                await client.request("DELETE", f"{server.worker_url}/sandboxes/{ident}")

    await asyncio.gather(*(worker(client) for client in clients))


def _set_sizes(server: Server) -> tuple[int, int]:
    """Return the proportional set sizes in KiB of the server's processes and of those inside sandboxes."""
    own = Path("/proc/self/ns/pid").readlink()
    outside = inside = 0
    for pid in server.processes():
        with contextlib.suppress(OSError):
            size = _set_size(pid)
            if Path(f"/proc/{pid}/ns/pid").readlink() == own:
                outside += size
            else:
                inside += size
    return outside, inside


def _set_size(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
