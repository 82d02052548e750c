"""A worker whose own disk fails it: nothing that lives is lost with the journal, and nothing wrong is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import clients, planes, storms

SMALL = {"memory_mib": 64}
JOURNAL = "journal.sqlite3"


def garbage(journal: Path, chance: random.Random) -> None:
    """Every page is something else."""
    journal.write_bytes(chance.randbytes(max(8192, journal.stat().st_size)))


def truncation(journal: Path, chance: random.Random) -> None:
    """The file ends in the middle of a page."""
    with journal.open("r+b") as file:
        file.truncate(4096 + chance.randrange(1, 4096))


def flips(journal: Path, chance: random.Random) -> None:
    """Some bytes differ in file and log, as after a failing disk."""
    for path in (journal, journal.with_name(f"{JOURNAL}-wal")):
        data = bytearray(path.read_bytes() if path.exists() else b"")
        for _ in range(len(data) // 256):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)


def a_directory(journal: Path, chance: random.Random) -> None:
    """What is there cannot be a file."""
    journal.rename(journal.with_name("elsewhere"))
    journal.mkdir()


@pytest.mark.parametrize("damage", [garbage, truncation, flips, a_directory])
async def test_a_damaged_journal_costs_no_sandbox(damage: object, fleet: planes.Fleet, seed: int) -> None:
    """The worker starts, live sandboxes and their commands go on as they were, and what follows is journaled."""
    assert callable(damage)
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(**SMALL, metadata={"a": "b"}))["sandbox_id"]
        ended = (await client.create(**SMALL))["sandbox_id"]
        await client.delete(ended)
        script = storms.counting(40, 0.05, 3)
        exec_id = await client.start(sandbox_id, script.command)
        await client.write(sandbox_id, "/tmp/file", b"kept")
        fleet.worker.kill()
        await asyncio.to_thread(damage, fleet.state / JOURNAL, random.Random(seed))
        await asyncio.to_thread(fleet.ensure)
        found = await client.sandbox(sandbox_id)
        assert (found["state"], found["metadata"]) == ("running", {"a": "b"})
        assert await client.read(sandbox_id, "/tmp/file") == b"kept"
        output = await client.output(sandbox_id, exec_id)
        assert (output.ended, output.stdout) == (("exited", 3), script.stdout)
        known = await client.call("GET", f"/sandboxes/{ended}", (200, 404))
        assert known.status_code == 404 or known.json()["reason"] == "deleted"
        await client.delete(sandbox_id)
        await asyncio.sleep(0.2)  # the journal may lose what is younger than its batch
        fleet.worker.kill()
        await asyncio.to_thread(fleet.ensure)
        assert await client.end(sandbox_id) == ("stopped", "deleted")


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Have something mounted at a path for a block."""
    subprocess.run(["mount", *options, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Have a file that cannot be written, by root either, for a block."""
    with mounted(path, "--bind", str(path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield


async def test_a_journal_that_cannot_be_written_is_told(fleet: planes.Fleet) -> None:
    """The worker serves what lives, and says in its log that nothing is written down; when that is mended the next one
    knows all that lives.
    """
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(**SMALL))["sandbox_id"]
        exec_id = await client.start(sandbox_id, "sleep 0.5; echo done")
        fleet.worker.kill()
        told = len(fleet.worker.events("journal_write_failed"))
        with read_only(fleet.state / JOURNAL):
            await asyncio.to_thread(fleet.worker.start)
            assert await client.end(sandbox_id) == ("running", None)
            other = (await client.create(**SMALL))["sandbox_id"]
            assert (await client.output(sandbox_id, exec_id)).stdout == b"done\n"
            planes.until(lambda: len(fleet.worker.events("journal_write_failed")) > told, "a word about it")
            fleet.worker.kill()
        await asyncio.to_thread(fleet.ensure)
        for one in (sandbox_id, other):
            assert await client.end(one) == ("running", None)
            assert (await client.run(one, "echo here"))["output"] == "here\n"
            await client.delete(one)
        again = await client.output(sandbox_id, exec_id)
        assert (again.ended, again.stdout) == (("exited", 0), b"done\n")


@pytest.fixture
def small_disk() -> Iterator[planes.Fleet]:
    """A worker that has 64 MiB for its state."""
    made = planes.fleet()
    made.state.mkdir()
    try:
        with mounted(made.state, "-t", "tmpfs", "-o", "size=64m", "faults"):
            made.worker.start()
            yield made
            made.worker.kill()
    finally:
        made.destroy()


async def test_a_full_host_disk_stops_nobody(small_disk: planes.Fleet) -> None:
    """Sandboxes are made, used and deleted. Output waits in its pipe, or is told to be dropped where its command ended;
    with room again all of it goes on, and after a restart every end is still the true one.
    """
    fleet = small_disk
    async with clients.client(fleet.worker.url) as client:
        first = (await client.create(**SMALL))["sandbox_id"]
        counting, bursting = storms.counting(30, 0.05, 3), storms.bursting(20_000, 4)
        execs = {await client.start(first, counting.command): counting}
        filler = fleet.state / "filler"
        await asyncio.to_thread(_fill, filler)
        second = (await client.create(**SMALL))["sandbox_id"]
        assert (await client.run(second, ["true"]))["exit_code"] == 0
        execs[await client.start(first, bursting.command)] = bursting
        short = await client.output(first, await client.start(first, "echo out; exit 9"))
        assert (short.ended, len(short.stdout) + short.dropped) == (("exited", 9), 4)
        await client.write(second, "/tmp/file", b"in the sandbox, not on that disk")
        await client.delete(second)
        filler.unlink()
        for exec_id, script in execs.items():
            output = await client.output(first, exec_id)
            assert (output.ended, output.dropped) == (("exited", script.exit_code), 0)
            assert output.stdout == script.stdout
        await asyncio.sleep(0.2)  # the journal may lose what is younger than its batch
        fleet.worker.kill()
        await asyncio.to_thread(fleet.worker.start)
        assert await client.end(first) == ("running", None)
        assert await client.end(second) == ("stopped", "deleted")
        for exec_id, script in execs.items():
            output = await client.output(first, exec_id)
            assert (output.ended, output.stdout) == (("exited", script.exit_code), script.stdout)
        await client.delete(first)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
