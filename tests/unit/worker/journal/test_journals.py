"""The journal: what was put is there after a restart, what cannot be read is in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import clocks
from traforo.domain import specs, states
from traforo.worker.journal import journalfiles, journals, records
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import happenings

RESOURCES = specs.Resources(cpu=0.5, memory_mib=64, disk_mib=32, pids=10)
SPEC = specs.SandboxSpec("host", "container", RESOURCES, 60.0, env={"A": "ü"}, metadata={"k": "v"})


def sandbox(number: int, **changes: object) -> records.SandboxRecord:
    values: dict[str, object] = {
        "sandbox_id": f"sbx_{number}",
        "spec": SPEC,
        "owner": "alice",
        "state": states.SandboxState.RUNNING,
        "created_at": 1.0,
        "expires_at": 61.0,
        "image": contract.Rootfs("host", (contract.Lower("/", "/"),), {"PATH": "/bin"}),
    }
    return records.SandboxRecord(**{**values, **changes})  # type: ignore[arg-type]  # a builder for tests


def run(number: int, sandbox_id: str, **changes: object) -> records.ExecRecord:
    values: dict[str, object] = {
        "exec_id": f"exec_{number}",
        "sandbox_id": sandbox_id,
        "status": states.ExecStatus.RUNNING,
        "started_at": 2.0,
        "facts": {"command": "true"},
    }
    return records.ExecRecord(**{**values, **changes})  # type: ignore[arg-type]  # a builder for tests


class Restarts:
    """Opens one journal file again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = clocks.FakeClock()
        self.opened: list[journals.Journal] = []

    async def open(self) -> tuple[journals.Journal, journalfiles.Contents]:
        journal = journals.Journal(self.path, self.clock, retention=3600)
        self.opened.append(journal)
        return journal, await journal.open()


@pytest.fixture
async def restarts(tmp_path: Path) -> AsyncIterator[Restarts]:
    found = Restarts(tmp_path / "state" / "journal.db")
    yield found
    for journal in found.opened:
        await journal.close()


async def test_a_new_journal_is_empty(restarts: Restarts) -> None:
    """Its directory is made as well."""
    _, contents = await restarts.open()
    assert contents == journalfiles.Contents([], [], [])
    assert restarts.path.parent.stat().st_mode & 0o777 == 0o700


async def test_what_was_put_is_there_after_a_restart(restarts: Restarts) -> None:
    """Sandboxes, execs and tokens come back equal, each as it was last."""
    journal, _ = await restarts.open()
    now = restarts.clock.now()
    journal.put_sandbox(sandbox(1))
    journal.put_sandbox(sandbox(2))
    journal.put_exec(run(1, "sbx_1"))
    journal.put_token("jti", now + 60)
    ended = sandbox(2, state=states.SandboxState.STOPPED, reason=states.EndReason.DELETED, ended_at=now, oom_kills=3)
    journal.put_sandbox(ended)
    await journal.close()
    _, contents = await restarts.open()
    assert contents == journalfiles.Contents([sandbox(1), ended], [run(1, "sbx_1")], [("jti", now + 60)])


async def test_dropping_a_sandbox_drops_its_execs(restarts: Restarts) -> None:
    """Nothing of it is left, everything of others is."""
    journal, _ = await restarts.open()
    for number in (1, 2):
        journal.put_sandbox(sandbox(number))
        journal.put_exec(run(number, f"sbx_{number}"))
    journal.put_exec(run(3, "sbx_2"))
    await journal.flush()
    journal.drop_sandbox("sbx_1")
    journal.drop_exec("exec_3")
    await journal.close()
    _, contents = await restarts.open()
    assert contents == journalfiles.Contents([sandbox(2)], [run(2, "sbx_2")], [])


async def test_what_is_past_its_retention_is_gone(restarts: Restarts) -> None:
    """An hour after the end, or when a token would have expired; what lives stays for ever."""
    journal, _ = await restarts.open()
    now = restarts.clock.now()
    journal.put_sandbox(sandbox(1))
    journal.put_sandbox(sandbox(2, ended_at=now, state=states.SandboxState.STOPPED))
    journal.put_exec(run(1, "sbx_1"))
    journal.put_exec(run(2, "sbx_2", ended_at=now, status=states.ExecStatus.EXITED))
    old = run(3, "sbx_1", ended_at=now, status=states.ExecStatus.EXITED)  # as long as its sandbox lives
    journal.put_exec(old)
    journal.put_token("short", now + 60)
    journal.put_token("long", now + 7200)
    await journal.close()
    restarts.clock.move(3601)
    _, contents = await restarts.open()
    assert contents == journalfiles.Contents([sandbox(1)], [run(1, "sbx_1"), old], [("long", now + 7200)])


async def test_then_is_called_when_it_is_safe(restarts: Restarts) -> None:
    """Whoever asked learns it when another connection can read the row, and not before."""
    journal, _ = await restarts.open()
    safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    journal.put_sandbox(sandbox(1), lambda: safe.set_result(None))
    assert not safe.done()
    await safe
    assert await asyncio.to_thread(_count, restarts.path) == 1


async def test_puts_do_not_wait_and_a_full_queue_does(restarts: Restarts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends are always taken; creates wait in `room` until the thread has caught up."""
    monkeypatch.setattr(journals, "MAX_QUEUE", 10)
    journal, _ = await restarts.open()
    for number in range(12):
        journal.put_sandbox(sandbox(number))
    was_full = journal.full
    await asyncio.gather(journal.room(), journal.room())
    assert (was_full, journal.full) == (True, False)
    await journal.flush()
    assert await asyncio.to_thread(_count, restarts.path) == 12


async def test_a_crash_loses_at_most_a_batch(restarts: Restarts) -> None:
    """What was flushed is there although nobody closed; what was not, is not, and the file is sound."""
    journal, _ = await restarts.open()
    journal.put_sandbox(sandbox(1))
    await journal.flush()
    journal.put_sandbox(sandbox(2))
    copy = Restarts(restarts.path.with_name("copy.db"))
    await asyncio.to_thread(_copy, restarts.path, copy.path)
    crashed, contents = await copy.open()
    assert contents.sandboxes == [sandbox(1)]
    await crashed.close()


@pytest.mark.parametrize("damage", ["garbage", "version", "record", "half"])
async def test_a_bad_file_is_moved_aside(restarts: Restarts, damage: str) -> None:
    """The worker starts with an empty journal, and the file is kept for whoever wants to look at it."""
    journal, _ = await restarts.open()
    for number in range(200):
        journal.put_sandbox(sandbox(number))
    await journal.close()
    await asyncio.to_thread(_damage, restarts.path, damage)
    journal, contents = await restarts.open()
    assert contents == journalfiles.Contents([], [], [])
    aside = [place.name for place in restarts.path.parent.glob("journal.db.bad-*")]
    assert len([name for name in aside if not name.endswith(("-wal", "-shm"))]) == 1
    journal.put_sandbox(sandbox(1))
    await journal.close()
    _, contents = await restarts.open()
    assert contents.sandboxes == [sandbox(1)]


async def test_a_disk_that_fails_loses_rows_and_nothing_else(
    restarts: Restarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that cannot be written is given up after some attempts, counted, and its `then` is not called."""
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.0)
    journal, _ = await restarts.open()
    real = journalfiles.write

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(journalfiles, "write", fail)
    told: list[str] = []
    journal.put_sandbox(sandbox(1), lambda: told.append("1"))
    await journal.flush()
    assert (journal.lost, told) == (1, [])
    monkeypatch.setattr(journalfiles, "write", real)
    journal.put_sandbox(sandbox(2), lambda: told.append("2"))
    await journal.flush()
    assert (journal.lost, told) == (1, ["2"])
    assert await asyncio.to_thread(_count, restarts.path) == 1


async def test_a_directory_that_cannot_be_made_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    """Whoever opens the journal is told why it cannot be."""
    await asyncio.to_thread((tmp_path / "file").write_text, "")
    journal = journals.Journal(tmp_path / "file" / "journal.db", clocks.FakeClock(), retention=1)
    with pytest.raises(OSError):
        await journal.open()


def _count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        (found,) = connection.execute("SELECT count(*) FROM sandboxes").fetchone()
    finally:
        connection.close()
    return int(found)


def _copy(source: Path, target: Path) -> None:
    """Copy database and log as they are on disk, as after a power cut."""
    for suffix in ("", "-wal"):
        target.with_name(target.name + suffix).write_bytes(source.with_name(source.name + suffix).read_bytes())


def _damage(path: Path, damage: str) -> None:
    if damage == "garbage":
        path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    elif damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        connection = sqlite3.connect(path)
        statement = "PRAGMA user_version = 99" if damage == "version" else "UPDATE sandboxes SET record = '{'"
        connection.execute(statement)
        connection.commit()
        connection.close()


def event(number: int, **facts: object) -> happenings.Event:
    return happenings.Event(number, 5.0 + number, states.Happening.PORT_PUBLISHED, facts)


async def test_events_come_back(restarts: Restarts) -> None:
    """Of each sandbox in order; those of its birth are in its record; with the sandbox they go."""
    journal, _ = await restarts.open()
    born = (happenings.Event(0, 1.0, states.Happening.CREATED), happenings.Event(1, 1.5, states.Happening.READY))
    journal.put_sandbox(sandbox(1, events=born, idle_seconds=7.0, last_activity_at=3.0))
    journal.put_sandbox(sandbox(2))
    for number in (3, 2, 10):
        journal.put_event("sbx_1", event(number, port=number))
    journal.put_event("sbx_2", event(0))
    await journal.close()
    journal, contents = await restarts.open()
    assert contents.events == {"sbx_1": [event(n, port=n) for n in (2, 3, 10)], "sbx_2": [event(0)]}
    assert contents.sandboxes == [sandbox(1, events=born, idle_seconds=7.0, last_activity_at=3.0), sandbox(2)]
    journal.drop_sandbox("sbx_1")
    await journal.close()
    _, contents = await restarts.open()
    assert contents.events == {"sbx_2": [event(0)]}


async def test_events_are_bounded(restarts: Restarts) -> None:
    """Of one sandbox a little more than can be read; of nobody, and of one past its retention, none."""
    journal, _ = await restarts.open()
    journal.put_sandbox(sandbox(1))
    journal.put_sandbox(sandbox(2, ended_at=restarts.clock.now(), state=states.SandboxState.STOPPED))
    for number in range(2500):
        journal.put_event("sbx_1", event(number))
    journal.put_event("sbx_2", event(1))
    journal.put_event("sbx_9", event(1))
    await journal.close()
    journal, contents = await restarts.open()
    assert set(contents.events) == {"sbx_1", "sbx_2"}
    found = [one.number for one in contents.events["sbx_1"]]
    assert found == list(range(found[0], 2500))
    assert happenings.MAX_KEPT <= len(found) < happenings.MAX_KEPT + 200
    await journal.close()
    restarts.clock.move(3601)
    _, contents = await restarts.open()
    assert set(contents.events) == {"sbx_1"}


async def test_a_journal_without_events_is_read(restarts: Restarts) -> None:
    """What an earlier version wrote is as good as ever, and takes events from then on."""
    journal, _ = await restarts.open()
    journal.put_sandbox(sandbox(1))
    await journal.close()
    with contextlib.closing(sqlite3.connect(restarts.path)) as connection:
        connection.execute("DROP TABLE events")
    journal, contents = await restarts.open()
    assert (contents.sandboxes, contents.events) == ([sandbox(1)], {})
    journal.put_event("sbx_1", event(0))
    await journal.close()
    _, contents = await restarts.open()
    assert contents.events == {"sbx_1": [event(0)]}
