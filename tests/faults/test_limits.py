"""Sandboxes that take all they can: neither a neighbour nor the worker notices."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults import censuses, clients, planes
from traforo.worker.hosts import disks

MIB = 1 << 20
LOUD_BYTES = 100_000_000
WORKER_GROWTH_KIB = 48 * 1024
NEIGHBOUR_RUNS = 30
SPARE_DESCRIPTORS = 24
"""From none at all to enough for some sandboxes."""


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
        inside = await client.run(full, "dd if=/dev/zero of=/tmp/more bs=64k count=1000; echo $?")
        assert "No space left on device" in inside["stderr"]
        assert inside["stdout"] == "1\n"
        made = await client.call("POST", f"{path}/mkdir", (200, 507), json={"path": "/tmp/a/b/c", "recursive": True})
        assert made.status_code == 200 or made.json()["error"]["code"] == "disk_full"
        assert (await client.run(full, "echo still; true"))["output"] == "still\n"
        await client.write(other, "/tmp/file", bytes(MIB))
        assert (await client.run(full, "rm -f /tmp/large /tmp/more"))["exit_code"] == 0
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


@contextlib.contextmanager
def few_descriptors(pid: int, spare: int) -> Iterator[None]:
    """Let a process have so many more descriptors than it has now, for a block."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit is on numbers, and there may be gaps.
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in used)
    limit = next(itertools.islice(free, spare, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_a_worker_without_descriptors_loses_nothing(client: clients.Client, fleet: planes.Fleet) -> None:
    """It refuses commands and sandboxes that it has no descriptors for. What runs goes on with its output, nothing that
    was refused runs on, and with descriptors again everything is as before.
    """
    async with sandbox(client, pids=400) as crowded, sandbox(client) as neighbour:
        first = await client.start(crowded, "until [ -e /tmp/go ]; do sleep 0.05; done; echo first; exit 3")
        await client.run(neighbour, ["true"])
        inits = {fleet.init(crowded), fleet.init(neighbour)}
        started, refused = [], 0
        with few_descriptors(fleet.worker.pid, 40):
            for _ in range(60):
                body = {"command": "until [ -e /tmp/go ]; do sleep 0.1; done; echo done"}
                answer = await client.http.post(f"/sandboxes/{crowded}/exec", json=body)
                assert answer.status_code in {202, 429, 503}, answer.text
                if answer.status_code == 202:
                    started.append(answer.json()["exec_id"])
                refused += answer.status_code != 202
            made = await client.http.post("/sandboxes", json={"memory_mib": 64})
            assert made.status_code in {201, 503}, made.text
        assert started
        assert refused
        if made.status_code == 201:
            await client.delete(made.json()["sandbox_id"])
        assert (await client.run(neighbour, "echo here"))["output"] == "here\n"
        await client.write(crowded, "/tmp/go", b"")
        output = await client.output(crowded, first)
        assert (output.ended, output.stdout) == (("exited", 3), b"first\n")
        for exec_id in started:
            output = await client.output(crowded, exec_id)
            assert (output.ended, output.stdout) == (("exited", 0), b"done\n")
        planes.until(lambda: set(fleet.processes()) == inits, "nothing but two inits", facts=fleet.processes)


async def test_a_spawner_without_descriptors_loses_nothing(client: clients.Client, fleet: planes.Fleet) -> None:
    """It refuses sandboxes that it has no descriptors for, at whichever step it lacks them, says why and leaves no
    trace; those that live go on.
    """
    spawner = planes.until(fleet.spawner, "a spawner")
    async with sandbox(client) as neighbour:
        made, reasons = [], []
        for spare in range(SPARE_DESCRIPTORS):
            with few_descriptors(spawner, spare):
                for _ in range(3):
                    answer = await client.http.post("/sandboxes", json={"memory_mib": 64})
                    assert answer.status_code in {201, 422}, answer.text
                    if answer.status_code == 201:
                        made.append(answer.json()["sandbox_id"])
                    else:
                        reasons.append(answer.json()["error"]["message"])
                assert (await client.run(neighbour, "echo here"))["output"] == "here\n"
        for sandbox_id in made:
            assert (await client.run(sandbox_id, "echo here"))["output"] == "here\n"
            await client.delete(sandbox_id)
        assert made
        assert [reason for reason in reasons if "Too many open files" not in reason] == []
        assert len({reason.split(":")[1] for reason in reasons}) > 2, "the steps at which it lacked descriptors"
        left = {path.name for path in fleet.sandbox_groups() if path.name.startswith("sbx_")}
        assert left == {neighbour}
        assert fleet.processes() == [fleet.init(neighbour)]
        await client.delete((await client.create(memory_mib=64))["sandbox_id"])
    assert fleet.spawner() == spawner
