"""The journal's file: schema, reading, writing and pruning, with what SQLite asks for to survive a crash.

Synchronous; it belongs to the journal's thread. A file that is damaged or of another version is moved aside with a loud
line in the log, for a worker that cannot start helps nobody, and what lives is known from its label in any case.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from traforo.worker.journal import records
from traforo.worker.sandboxes import happenings

VERSION = 1
"""Of the tables below and of the records in them; kept in SQLite's `user_version`."""
FAILURES = (sqlite3.Error, UnicodeError)
"""What SQLite raises. The second where it wants to quote bytes of a damaged file that are no text."""
BUSY_MS = 5_000
"""How long SQLite waits for a lock that somebody who looks into the file may hold."""

_SCHEMA = """
CREATE TABLE sandboxes (id TEXT PRIMARY KEY, state TEXT NOT NULL, ended_at REAL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX sandboxes_ended_at ON sandboxes (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE execs (
    id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, state TEXT NOT NULL, ended_at REAL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX execs_sandbox_id ON execs (sandbox_id);
CREATE INDEX execs_ended_at ON execs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE tokens (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX tokens_expires_at ON tokens (expires_at);
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS events (
    sandbox_id TEXT NOT NULL, number INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (sandbox_id, number)
) WITHOUT ROWID;
"""
"""What came later, and neither changes what was there nor is missed by a program that does not know of it."""
_TRIM_EVERY = 100

_encode = msgspec.json.Encoder().encode
_event_decoder = msgspec.json.Decoder(happenings.Event)


@dataclass(frozen=True, slots=True)
class Contents:
    """What an earlier worker left."""

    sandboxes: Sequence[records.SandboxRecord]
    execs: Sequence[records.ExecRecord]
    tokens: Sequence[tuple[str, float]]
    """Used `jti` and the Unix time until which it has to be remembered."""
    events: Mapping[str, Sequence[happenings.Event]] = field(default_factory=dict)
    """By sandbox, oldest first."""


def write(connection: sqlite3.Connection, rows: Mapping[tuple[str, str], Any]) -> None:
    """Write rows, `(kind, id)` to a record or None, all or (with one of `FAILURES`) none."""
    with _transaction(connection):
        for (kind, key), value in rows.items():
            for statement in _statements(kind, key, value):
                connection.execute(*statement)


def prune(connection: sqlite3.Connection, now: float, retention: float) -> None:
    """Throw away sandboxes that ended more than `retention` seconds ago, with all of theirs, and tokens that no longer
    hold. Execs of a sandbox that lives are kept, however long ago they ended: they can still be read.
    """
    with _transaction(connection):
        connection.execute(
            "DELETE FROM events WHERE sandbox_id IN (SELECT id FROM sandboxes WHERE ended_at < ?)", (now - retention,)
        )
        connection.execute(
            "DELETE FROM execs WHERE sandbox_id IN (SELECT id FROM sandboxes WHERE ended_at < ?)", (now - retention,)
        )
        connection.execute("DELETE FROM sandboxes WHERE ended_at < ?", (now - retention,))
        connection.execute("DELETE FROM tokens WHERE expires_at < ?", (now,))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _statements(kind: str, key: str, value: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield SQL and parameters of one write."""
    if kind == "token":
        yield "INSERT OR REPLACE INTO tokens VALUES (?, ?)", (key, value)
    elif kind == "event":
        sandbox_id, event = value.sandbox_id, value.event
        yield "INSERT OR REPLACE INTO events VALUES (?, ?, ?)", (sandbox_id, event.number, _encode(event))
        if event.number % _TRIM_EVERY == 0:
            least = event.number - happenings.MAX_KEPT
            yield "DELETE FROM events WHERE sandbox_id = ? AND number <= ?", (sandbox_id, least)
    elif kind == "exec" and value is None:
        yield "DELETE FROM execs WHERE id = ?", (key,)
    elif kind == "exec":
        state, ended_at = value.status.value, value.ended_at
        row = (key, value.sandbox_id, state, ended_at, msgspec.json.encode(value))
        yield "INSERT OR REPLACE INTO execs VALUES (?, ?, ?, ?, ?)", row
    elif value is None:
        yield "DELETE FROM events WHERE sandbox_id = ?", (key,)
        yield "DELETE FROM execs WHERE sandbox_id = ?", (key,)
        yield "DELETE FROM sandboxes WHERE id = ?", (key,)
    else:
        yield (
            "INSERT OR REPLACE INTO sandboxes VALUES (?, ?, ?, ?)",
            (key, value.state.value, value.ended_at, msgspec.json.encode(value)),
        )


def _events(connection: sqlite3.Connection) -> dict[str, list[happenings.Event]]:
    """Return the events of sandboxes that are known. Those of others are left over from a crash."""
    found: dict[str, list[happenings.Event]] = {}
    known = "SELECT sandbox_id, record FROM events WHERE sandbox_id IN (SELECT id FROM sandboxes)"
    for sandbox_id, blob in connection.execute(f"{known} ORDER BY sandbox_id, number"):
        found.setdefault(sandbox_id, []).append(_event_decoder.decode(blob))
    return found


def connect(path: Path, log: Any) -> sqlite3.Connection:
    """Open or make the file; a bad one is moved aside. Raises one of `FAILURES` or `OSError` if none can be made."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return _connect(path)
    except (sqlite3.DatabaseError, UnicodeError, _UnreadableError):
        aside = path.with_name(f"{path.name}.bad-{time.time_ns()}")
        log.exception("journal_unreadable", path=str(path), moved_to=str(aside))
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        return _connect(path)


class _UnreadableError(Exception):
    """The file is damaged, or was written by another version of this program."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:  # new, or so it seems: a header may be damaged too, and all that was in the log be void with it
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}{_ADDED} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise _UnreadableError(f"cannot read a journal of version {version}: this program writes {VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _UnreadableError(f"cannot read a damaged journal: {verdict}")
    connection.executescript(_ADDED)
    load(connection)
    with contextlib.suppress(sqlite3.OperationalError):  # a file that cannot be written now is no damaged one
        connection.execute("DELETE FROM events WHERE sandbox_id NOT IN (SELECT id FROM sandboxes)")


def load(connection: sqlite3.Connection) -> Contents:
    """Return everything in the file."""
    try:
        return Contents(
            sandboxes=[
                msgspec.json.decode(blob, type=records.SandboxRecord)
                for (blob,) in connection.execute("SELECT record FROM sandboxes ORDER BY id")
            ],
            execs=[
                msgspec.json.decode(blob, type=records.ExecRecord)
                for (blob,) in connection.execute("SELECT record FROM execs ORDER BY id")
            ],
            tokens=msgspec.convert(
                connection.execute("SELECT jti, expires_at FROM tokens").fetchall(), list[tuple[str, float]]
            ),
            events=_events(connection),
        )
    except msgspec.MsgspecError as error:
        raise _UnreadableError(f"cannot read a record: {error}") from error
