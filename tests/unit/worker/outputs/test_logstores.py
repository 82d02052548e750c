"""Where logs are kept: found again after a restart, and never given to another exec while somebody reads them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from traforo.worker.execs import runs
from traforo.worker.outputs import blanks, budgets, framelogs, frames, logstores

pytestmark = pytest.mark.may_block("the tests themselves look at the directory")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[logstores.LogStore]:
    found = logstores.LogStore(tmp_path / "logs", framelogs.Limits())
    yield found
    await found.close()


def run(number: int) -> runs.Exec:
    return runs.Exec(f"exec_{number}", "sbx", "true", 0.0)


def printed(store: logstores.LogStore, one: runs.Exec, data: bytes) -> framelogs.FrameLog:
    """Let an exec print something and end."""
    one.log = store.new(one, None)
    one.log.append(frames.Kind.STDOUT, data, 0)
    one.log.finish(b"{}", 0)
    one.written = runs.Written(len(data), 0, 1)
    return one.log


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "logs").glob("exec_*"))


async def test_files_are_used_again(store: logstores.LogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a forgotten log becomes that of another exec, without a byte of the first."""
    monkeypatch.setattr(blanks, "LOW", 0)
    one, two = run(1), run(2)
    printed(store, one, b"of the first")
    inode = (tmp_path / "logs" / "exec_1.0").stat().st_ino
    await store.remove([one])
    assert names(tmp_path) == []
    printed(store, two, b"2")
    assert (tmp_path / "logs" / "exec_2.0").stat().st_ino == inode
    assert b"first" not in (tmp_path / "logs" / "exec_2.0").read_bytes()


async def test_files_that_are_read_are_not(
    store: logstores.LogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread reads a log its file is not given to anybody, though the log is forgotten."""
    monkeypatch.setattr(blanks, "LOW", 0)
    one, two = run(1), run(2)
    log = printed(store, one, b"of the first")
    inode = (tmp_path / "logs" / "exec_1.0").stat().st_ino
    file = (tmp_path / "logs" / "exec_1.0").open("rb")  # what a reader holds
    begun, go = threading.Event(), threading.Event()

    def reading() -> bytes:
        begun.set()
        go.wait(20)
        return file.read()

    task = asyncio.ensure_future(store.read(log, reading, inline_bytes=0))
    await asyncio.to_thread(begun.wait, 20)
    await store.remove([one])
    printed(store, two, b"of the second")
    go.set()
    assert b"of the first" in await task
    assert (tmp_path / "logs" / "exec_2.0").stat().st_ino != inode
    file.close()
    assert log.readers == set()


async def test_restart(store: logstores.LogStore, tmp_path: Path) -> None:
    """Another worker finds what was written, sweeps what belongs to nobody, and counts what it reads."""
    known, stranger = run(1), run(2)
    printed(store, known, b"known")
    printed(store, stranger, b"stranger")
    again = logstores.LogStore(tmp_path / "logs", framelogs.Limits())
    assert await again.sweep({"exec_1"}.__contains__) == 1
    assert names(tmp_path) == ["exec_1.0"]
    known.log = None
    budget = budgets.Budget(1 << 20)
    first, second = await asyncio.gather(again.recover(known, budget), again.recover(known, budget))
    assert [first, second] == [known.log, known.log]
    assert first.held == 5
    assert budget.used == first.size > 0
    await again.remove([known])
    assert (names(tmp_path), budget.used) == ([], 0)
    await again.close()
    await again.close()


async def test_unread_logs_are_removed_too(store: logstores.LogStore, tmp_path: Path) -> None:
    """A log that nobody read since the restart goes with its exec."""
    one = run(1)
    printed(store, one, b"x")
    again = logstores.LogStore(tmp_path / "logs", framelogs.Limits())
    one.log = None
    await again.remove([one, run(3)])
    assert names(tmp_path) == []
    await again.close()
