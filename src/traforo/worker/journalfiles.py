"""The journal's file: schema, reading, writing and pruning, with what SQLite asks for to survive a crash.

Synchronous; it belongs to the journal's thread. A file that is damaged or of another version is moved aside with a loud
line in the log, for a worker that cannot start helps nobody, and what lives is known from its label in any case.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from traforo.worker import records

VERSION = 1
"""Of the tables below and of the records in them; kept in SQLite's `user_version`."""
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


@dataclass(frozen=True, slots=True)
class Contents:
    """What an earlier worker left."""

    sandboxes: Sequence[records.SandboxRecord]
    execs: Sequence[records.ExecRecord]
    tokens: Sequence[tuple[str, float]]
    """Used `jti` and the Unix time until which it has to be remembered."""


def write(connection: sqlite3.Connection, rows: Mapping[tuple[str, str], Any]) -> None:
    """Write rows, `(kind, id)` to a record or None, all or (with `sqlite3.Error`) none."""
    with _transaction(connection):
        for (kind, key), value in rows.items():
            for statement in _statements(kind, key, value):
                connection.execute(*statement)


def prune(connection: sqlite3.Connection, now: float, retention: float) -> None:
    """Throw away what ended more than `retention` seconds ago, and tokens that no longer hold."""
    with _transaction(connection):
        connection.execute("DELETE FROM sandboxes WHERE ended_at < ?", (now - retention,))
        connection.execute("DELETE FROM execs WHERE ended_at < ?", (now - retention,))
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
    elif kind == "exec" and value is None:
        yield "DELETE FROM execs WHERE id = ?", (key,)
    elif kind == "exec":
        state, ended_at = value.status.value, value.ended_at
        row = (key, value.sandbox_id, state, ended_at, msgspec.json.encode(value))
        yield "INSERT OR REPLACE INTO execs VALUES (?, ?, ?, ?, ?)", row
    elif value is None:
        yield "DELETE FROM execs WHERE sandbox_id = ?", (key,)
        yield "DELETE FROM sandboxes WHERE id = ?", (key,)
    else:
        yield (
            "INSERT OR REPLACE INTO sandboxes VALUES (?, ?, ?, ?)",
            (key, value.state.value, value.ended_at, msgspec.json.encode(value)),
        )


def connect(path: Path, log: Any) -> sqlite3.Connection:
    """Open or make the file; a bad one is moved aside. Raises `sqlite3.Error` or `OSError` if none can be made."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return _connect(path)
    except (sqlite3.DatabaseError, _UnreadableError):
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
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        return
    if version != VERSION:
        raise _UnreadableError(f"cannot read a journal of version {version}: this program writes {VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _UnreadableError(f"cannot read a damaged journal: {verdict}")
    load(connection)


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
            tokens=list(connection.execute("SELECT jti, expires_at FROM tokens")),
        )
    except msgspec.MsgspecError as error:
        raise _UnreadableError(f"cannot read a record: {error}") from error
