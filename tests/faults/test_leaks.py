"""What a thousand sandboxes leave behind: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.faults import censuses, clients, planes
from traforo.worker.hosts import disks

ROUNDS = 1000
DISK_ROUNDS = 16
WARM_ROUNDS = 50
AT_ONCE = 8
RETENTION_SECONDS = 2
WORKER_GROWTH_KIB = 48 * 1024
SPAWNER_GROWTH_KIB = 4 * 1024
CHARGED_BYTES = 32 << 20
NOTHING = {"sandboxes": 0, "execs": 0, "tokens": 0}

FAILING = (
    {"command": ["/no/such/program"]},
    {"command": "true", "cwd": "/no/such/directory"},
    {"command": "true", "user": "nobody-of-this-name"},
)


@pytest.fixture(scope="module")
def short() -> Iterator[planes.Fleet]:
    """A worker that soon forgets the ended, without a control plane."""
    with planes.lent(f"--ended-retention-seconds={RETENTION_SECONDS}") as fleet:
        yield fleet


@pytest.fixture
async def client(short: planes.Fleet) -> AsyncIterator[clients.Client]:
    async with clients.client(short.worker.url, connections=AT_ONCE) as opened:
        yield opened


async def rounds(client: clients.Client, count: int, **wanted: object) -> None:
    """Make, use and delete so many sandboxes, a few at a time."""
    todo = iter(range(count))

    async def go_on() -> None:
        for number in todo:
            sandbox_id = (await client.create(memory_mib=64, **wanted))["sandbox_id"]
            await use(client, sandbox_id, number)
            await client.delete(sandbox_id)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(go_on())


async def use(client: clients.Client, sandbox_id: str, number: int) -> None:
    """Do something different in each sandbox."""
    if number % 2:
        # Half a MB in its writable layer, output on both streams, and a process that outlives its command.
        command = "head -c 500000 /dev/zero > /tmp/file; echo out; echo err >&2; sleep 1000 &"
        assert (await client.run(sandbox_id, command))["exit_code"] == 0
    if number % 5 == 0:
        await client.write(sandbox_id, "/tmp/other", b"x" * 5000)
    if number % 7 == 0:
        await client.start(sandbox_id, "while :; do echo busy; sleep 0.01; done")
    if number % 11 == 0:
        await client.call("POST", "/sandboxes", 404, json={"image": "dir:/no/such/image"})
        for body in FAILING:
            await client.call("POST", f"/sandboxes/{sandbox_id}/exec", (404, 422), json=body)


async def forgotten(fleet: planes.Fleet, client: clients.Client) -> None:
    """Return when the worker, and its journal, have forgotten every sandbox that ended."""

    async def known() -> int:
        return len((await client.call("GET", "/sandboxes", 200)).json()["sandboxes"])

    deadline = time.monotonic() + 20
    while (held := (await known(), censuses.journaled(fleet))) != (0, NOTHING):
        assert time.monotonic() < deadline, held
        await asyncio.sleep(0.1)


def nothing_left(fleet: planes.Fleet, before: censuses.Census) -> None:
    """Fail unless everything is as it was, now or in a moment."""

    def left() -> dict[str, dict[str, int]]:
        return censuses.left(before, censuses.take(fleet))

    planes.until(lambda: not left(), "everything as it was", facts=left)


@pytest.mark.timeout(150)
async def test_a_thousand_sandboxes_leave_nothing(
    short: planes.Fleet, client: clients.Client, scale: int, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """No mount, no control group, no process, no descriptor, no file, no tmpfs, no record; and memory of worker and
    spawner that does not grow with the number.
    """
    spawner = planes.until(short.spawner, "a spawner")
    await rounds(client, WARM_ROUNDS)  # threads, buffers and caches that are made once
    await forgotten(short, client)
    before = censuses.take(short)
    memory = [censuses.resident_kib(pid) for pid in (short.worker.pid, spawner)]
    await rounds(client, ROUNDS * scale)
    await forgotten(short, client)
    nothing_left(short, before)
    assert short.spawner() == spawner
    growth = [censuses.resident_kib(pid) - old for pid, old in zip((short.worker.pid, spawner), memory, strict=True)]
    charged = censuses.charged_bytes(short)
    grown = f"{memory} and {growth} more after {ROUNDS * scale} sandboxes"
    record_testsuite_property("resident KiB of worker and spawner", grown)
    assert growth[0] < WORKER_GROWTH_KIB
    assert growth[1] < SPAWNER_GROWTH_KIB
    assert charged < CHARGED_BYTES


async def test_disks_leave_nothing(short: planes.Fleet, client: clients.Client, scale: int) -> None:
    """No image file, no loop device and no mount of sandboxes with a disk of their own, used or not."""
    if lacking := disks.missing():
        pytest.skip(lacking)
    await rounds(client, AT_ONCE, disk_kind="disk", disk_mib=16)
    await forgotten(short, client)
    before = censuses.take(short)
    await rounds(client, DISK_ROUNDS * scale, disk_kind="disk", disk_mib=16)
    await forgotten(short, client)
    nothing_left(short, before)
    assert short.images() == []
