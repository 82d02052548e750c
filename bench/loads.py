"""Many at once: a burst of creates, and creates and deletes sustained for some seconds.

The client runs on the same processors as the server and is part of the figure, as the goals ask for; it is one asyncio
process with one keep-alive connection a task, opened beforehand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import answers
from bench.clients import AsyncClient
from bench.contenders import MeasurementError
from bench.servers import Server
from bench.stats import percentile

_MOST_FAILURES = 20
"""A sustained load ends after so many: something is broken and more of it tells nothing."""


@dataclass(frozen=True, slots=True)
class Burst:
    """All creates sent at once."""

    through_control: bool
    asked: int
    created: int
    last_ready_ms: float
    """From the first byte sent to the last 201 received."""
    median_ms: float
    message: str = ""
    """The first failure, if there was one."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """Tasks that each create and delete, over and over."""

    concurrency: int
    seconds: float
    pairs: int
    failures: int
    per_second: float
    create_median_ms: float
    create_p99_ms: float
    message: str = ""


async def burst(server: Server, *, image: str, count: int, through_control: bool) -> Burst:
    """Create `count` sandboxes at once, then delete them."""
    door = server.control_url if through_control else server.worker_url
    clients = [AsyncClient() for _ in range(count)]
    try:
        for client in clients:
            await client.connect(door, server.worker_url)
        start = time.perf_counter()
        outcomes = await asyncio.gather(*(_created(client, door, image) for client in clients), return_exceptions=True)
        ids = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
        ends = sorted(outcome[1] - start for outcome in outcomes if isinstance(outcome, tuple))
        refusals = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        deletions = (_delete(client, server, ident) for client, ident in zip(clients, ids, strict=False))
        refusals += [outcome for outcome in await asyncio.gather(*deletions, return_exceptions=True) if outcome]
    finally:
        for client in clients:
            await client.close()
    return Burst(
        through_control=through_control,
        asked=count,
        created=len(ids),
        last_ready_ms=ends[-1] * 1000 if ends else 0.0,
        median_ms=percentile(ends, 0.5) * 1000 if ends else 0.0,
        message=str(refusals[0]) if refusals else "",
    )


async def sustained(server: Server, *, image: str, concurrency: int, seconds: float) -> Sustained:
    """Create and delete from `concurrency` tasks for `seconds`."""
    clients = [AsyncClient() for _ in range(concurrency)]
    tally = _Tally()
    try:
        for client in clients:
            await client.connect(server.worker_url)
        start = time.perf_counter()
        await asyncio.gather(*(_pairs(client, server, image, start + seconds, tally) for client in clients))
        taken = time.perf_counter() - start
    finally:
        for client in clients:
            await client.close()
    ordered = sorted(tally.creates)
    return Sustained(
        concurrency=concurrency,
        seconds=taken,
        pairs=tally.pairs,
        failures=len(tally.messages),
        per_second=tally.pairs / taken,
        create_median_ms=percentile(ordered, 0.5) * 1000 if ordered else 0.0,
        create_p99_ms=percentile(ordered, 0.99) * 1000 if ordered else 0.0,
        message=tally.messages[0] if tally.messages else "",
    )


def run_bursts(server: Server, *, image: str, count: int, repeats: int) -> Sequence[Burst]:
    """Repeat the burst through both doors in turns."""
    return [
        asyncio.run(burst(server, image=image, count=count, through_control=through_control))
        for _ in range(repeats)
        for through_control in (False, True)
    ]


def run_sustained(server: Server, *, image: str, levels: Sequence[int], seconds: float) -> Sequence[Sustained]:
    """Hold each level of concurrency in turn."""
    return [asyncio.run(sustained(server, image=image, concurrency=level, seconds=seconds)) for level in levels]


class _Tally:
    def __init__(self) -> None:
        self.pairs = 0
        self.creates: list[float] = []
        self.messages: list[str] = []


async def _pairs(client: AsyncClient, server: Server, image: str, until: float, tally: _Tally) -> None:
    while time.perf_counter() < until and len(tally.messages) < _MOST_FAILURES:
        start = time.perf_counter()
        try:
            ident, end = await _created(client, server.worker_url, image)
            await _delete(client, server, ident)
        except MeasurementError as error:
            tally.messages.append(str(error))
            continue
        tally.creates.append(end - start)
        tally.pairs += 1


async def _created(client: AsyncClient, door: str, image: str) -> tuple[str, float]:
    sandbox = answers.created(await client.request("POST", f"{door}/sandboxes", {"image": image}))
    return str(sandbox["sandbox_id"]), time.perf_counter()


async def _delete(client: AsyncClient, server: Server, ident: str) -> None:
    answers.deleted(await client.request("DELETE", f"{server.worker_url}/sandboxes/{ident}"))
