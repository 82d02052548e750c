"""Sandboxes that take all they can: neither a neighbour nor the worker notices."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest

from tests.faults import censuses, clients, planes
from traforo.worker.hosts import disks

MIB = 1 << 20
LOUD_BYTES = 100_000_000
WORKER_GROWTH_KIB = 48 * 1024
NEIGHBOUR_RUNS = 30


@pytest.fixture
async def client(fleet: planes.Fleet) -> AsyncIterator[clients.Client]:
    async with clients.client(fleet.worker.url) as opened:
        yield opened


@contextlib.asynccontextmanager
async def sandbox(client: clients.Client, **wanted: object) -> AsyncIterator[str]:
    """Have a sandbox for a block."""
    sandbox_id = (await client.create(**{"memory_mib": 64, **wanted}))["sandbox_id"]
    try:
        yield sandbox_id
    finally:
        await client.delete(sandbox_id)


@pytest.mark.parametrize("kind", ["tmpfs", "disk"])
async def test_a_full_disk_is_the_sandboxs_own(kind: str, client: clients.Client) -> None:
    """Writing from outside is `disk_full`, writing inside is ENOSPC, a neighbour goes on writing, and with room again
    so does this one.
    """
    if kind == "disk" and (lacking := disks.missing()):
        pytest.skip(lacking)
    async with sandbox(client, disk_kind=kind, disk_mib=16) as full, sandbox(client, disk_mib=16) as other:
        path, data = f"/sandboxes/{full}/files", bytes(MIB) * 24
        refused = await client.call("PUT", path, 507, params={"path": "/tmp/large"}, content=data)
        assert refused.json()["error"]["code"] == "disk_full"
        inside = await client.run(full, "dd if=/dev/zero of=/tmp/more bs=64k count=100; echo $?")
        assert "No space left on device" in inside["stderr"]
        assert inside["stdout"] == "1\n"
        made = await client.call("POST", f"{path}/mkdir", (200, 507), json={"path": "/tmp/a/b/c", "recursive": True})
        assert made.status_code == 200 or made.json()["error"]["code"] == "disk_full"
        assert (await client.run(full, "echo still; true"))["output"] == "still\n"
        await client.write(other, "/tmp/file", bytes(MIB))
        assert (await client.run(full, "rm /tmp/large /tmp/more"))["exit_code"] == 0
        await client.write(full, "/tmp/large", b"x" * MIB)
        assert await client.read(full, "/tmp/large") == b"x" * MIB


async def test_a_fork_bomb_harms_nobody(client: clients.Client, fleet: planes.Fleet) -> None:
    """A neighbour's commands go on working and the worker answers; within its own limit so do the bomber's; and its
    end takes every process.
    """
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000"
    async with sandbox(client) as neighbour:
        async with sandbox(client, pids=40, cpu=0.5) as bomber:
            await client.start(bomber, bomb)
            await asyncio.sleep(0.3)
            for _ in range(NEIGHBOUR_RUNS):
                assert (await client.run(neighbour, ["true"]))["exit_code"] == 0
                assert (await client.call("GET", "/healthz", 200)).json() == {"status": "ok"}
            refused = await client.http.post(f"/sandboxes/{bomber}/exec", json={"command": "true", "wait": True})
            assert refused.status_code in {200, 422}, refused.text  # there is room for a process, or there is none
            assert len(fleet.processes()) < 60
        assert len(fleet.processes()) == 1


async def test_a_memory_hog_harms_nobody(client: clients.Client) -> None:
    """It is told to be out of memory; its sandbox and a neighbour's commands go on."""
    async with sandbox(client) as neighbour, sandbox(client) as hungry:
        hog = "x=$(head -c 300000000 /dev/zero | tr '\\0' a); echo survived"
        for _ in range(3):
            exec_id = await client.start(hungry, hog)
            for _ in range(NEIGHBOUR_RUNS // 3):
                assert (await client.run(neighbour, ["true"]))["exit_code"] == 0
            output = await client.output(hungry, exec_id)
            assert (output.ended, output.stdout) == (("out_of_memory", 137), b"")
        assert (await client.run(hungry, "echo still"))["output"] == "still\n"


async def test_a_sandbox_full_of_memory_ends_as_that(client: clients.Client) -> None:
    """Where the memory limit leaves nothing to kill but the sandbox itself, it ended out of memory, or it goes on."""
    async with sandbox(client) as neighbour, sandbox(client, memory_mib=32, disk_mib=32) as full:
        for number in range(6):
            body = {"command": f"head -c 40000000 /dev/zero > /tmp/{number}", "wait": True}
            answer = await client.http.post(f"/sandboxes/{full}/exec", json=body)
            assert answer.status_code in {200, 409, 410, 422}, answer.text
            assert (await client.run(neighbour, ["true"]))["exit_code"] == 0
        assert await client.end(full) in {("running", None), ("stopped", "out_of_memory")}


async def test_a_loud_command_and_a_slow_reader(client: clients.Client, fleet: planes.Fleet) -> None:
    """100 MB of output of one command come whole and in order to a reader that takes its time; meanwhile neither the
    command nor a neighbour waits for him, and the worker keeps none of it in memory.
    """
    line = b"0123456789abcde\n"
    wanted = hashlib.sha256(line * (LOUD_BYTES // len(line))).hexdigest()
    async with sandbox(client) as neighbour, sandbox(client) as loud:
        before = censuses.resident_kib(fleet.worker.pid)
        exec_id = await client.start(loud, f"yes 0123456789abcde | head -c {LOUD_BYTES}; exit 9")
        found, cursor, size, most = hashlib.sha256(), 0, 0, 0
        more = True
        while more:
            query = {"cursor": cursor, "wait": 5, "limit": 20}
            path = f"/sandboxes/{loud}/exec/{exec_id}/frames"
            page = (await client.call("GET", path, 200, params=query)).json()
            assert page["dropped"] == 0
            for frame in page["frames"]:
                assert frame["cursor"] == cursor
                cursor += 1
                if frame["type"] == "stdout":
                    found.update(frame["data"].encode())
                    size += len(frame["data"])
            more = page["has_more"]
            most = max(most, censuses.resident_kib(fleet.worker.pid))
            assert (await client.run(neighbour, ["true"]))["exit_code"] == 0
        result = await client.exec(loud, exec_id)
        assert (result["end"], result["exit_code"], result["stdout_truncated"]) == ("exited", 9, True)
        assert (size, found.hexdigest()) == (LOUD_BYTES, wanted)
        assert most - before < WORKER_GROWTH_KIB
