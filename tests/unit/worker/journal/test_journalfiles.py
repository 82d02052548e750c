"""A journal's file that its disk has damaged: it is used whole, or not at all."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from traforo.domain import specs, states
from traforo.worker.journal import journalfiles, records
from traforo.worker.runtimes import contract

ROWS = 60
KEPT = {f"sbx_kept_{number}" for number in range(10)}
SPEC = specs.SandboxSpec("host", "container", specs.Resources(cpu=0.5, memory_mib=64, disk_mib=32, pids=10), 60.0)


class Words:
    """Takes what would be logged."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def exception(self, event: str, **fields: object) -> None:
        self.said.append(event)


def sandbox(sandbox_id: str) -> records.SandboxRecord:
    return records.SandboxRecord(
        sandbox_id=sandbox_id,
        spec=SPEC,
        owner="alice",
        state=states.SandboxState.RUNNING,
        created_at=1.0,
        expires_at=61.0,
        image=contract.Rootfs("host", (contract.Lower("/", "/"),), {"PATH": "/bin"}),
    )


@pytest.fixture(scope="module", params=["file", "log"])
def journal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as a killed worker leaves it: most of the rows in the file, or all of them in its log."""
    made = tmp_path_factory.mktemp("made") / "journal.db"
    left: Path = tmp_path_factory.mktemp("left")
    with contextlib.closing(journalfiles.connect(made, Words())) as connection:
        for number in range(ROWS):
            journalfiles.write(connection, {("sandbox", f"sbx_{number}"): sandbox(f"sbx_{number}")})
            journalfiles.write(connection, {("token", f"jti_{number}"): 1e12})
        if request.param == "file":
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for path in made.parent.iterdir():
            shutil.copy(path, left)
    return left / made.name


def damage(directory: Path, chance: random.Random) -> None:
    """Flip bits in file and log: few anywhere, or some in the file's header."""
    for path in sorted(directory.iterdir()):
        data = bytearray(path.read_bytes())
        reach = chance.choice([len(data), 100, 2048])
        for _ in range(chance.choice([1, 2, 4, 16])):
            at = chance.randrange(min(reach, len(data))) if data else 0
            data[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1])
        path.write_bytes(data)


@pytest.mark.parametrize("seed", range(80))
def test_what_is_written_after_damage_is_there_next_time(journal: Path, tmp_path: Path, seed: int) -> None:
    """Damage is found when the file is opened, or it is in nobody's way: the file opens, takes rows, and has them when
    it is opened again. No row has another shape than was written.
    """
    place = tmp_path / "damaged"
    shutil.copytree(journal.parent, place)
    damage(place, random.Random(seed))
    path, words = place / journal.name, Words()
    with contextlib.closing(journalfiles.connect(path, words)) as connection:
        for kept in KEPT:
            journalfiles.write(connection, {("sandbox", kept): sandbox(kept)})
        journalfiles.prune(connection, 2.0, 60.0)
    assert len(words.said) <= 1
    words.said.clear()
    with contextlib.closing(journalfiles.connect(path, words)) as connection:
        found = journalfiles.load(connection)
    assert words.said == []
    assert {record.sandbox_id for record in found.sandboxes} >= KEPT
    assert {(type(jti), type(until)) for jti, until in found.tokens} <= {(str, float)}


def test_a_header_that_says_empty_is_not_believed(tmp_path: Path) -> None:
    """It looks like a new file, and is none: what would be written into it might be lost with it."""
    path, words = tmp_path / "journal.db", Words()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")  # writes a header, and nothing else
    data = bytearray(path.read_bytes())
    data[64:68] = b"\0\0\0\1"  # half of a setting, of which only the other half decides how pages are made
    path.write_bytes(data)
    journalfiles.connect(path, words).close()
    assert words.said == ["journal_unreadable"]
    journalfiles.connect(path, words).close()
    assert words.said == ["journal_unreadable"]


def test_bytes_that_are_no_text_make_a_file_unreadable(tmp_path: Path) -> None:
    """SQLite wants to quote them in what it says, and cannot: that must not keep a worker from starting."""
    path, words = tmp_path / "journal.db", Words()
    journalfiles.connect(path, words).close()
    data = path.read_bytes()
    name = b"\xef\xff\xfe\xfa\xf9\xf8"
    assert b"tabletokenstokens" in data
    data = data.replace(b"tabletokenstokens", b"table" + name + name)
    path.write_bytes(data.replace(b"CREATE TABLE tokens", b"CREATE TABL? " + name))
    with contextlib.closing(journalfiles.connect(path, words)) as connection:
        assert journalfiles.load(connection).tokens == []
    assert words.said == ["journal_unreadable"]
