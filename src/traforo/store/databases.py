"""Databases by address: how one is reached, brought to the newest schema and opened.

All that SQLite needs said differently from PostgreSQL is said here, so that tables and transactions are the same text
for both. An address is given without an async driver (`sqlite:////var/lib/…/control.sqlite3`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command, config
from alembic.util import exc as alembic_errors
from sqlalchemy.ext import asyncio as sa_asyncio

from traforo.domain import errors
from traforo.store import transactions

MIGRATIONS = Path(__file__).parent / "migrations"
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # A crash of the process loses nothing; one of the machine may lose the last seconds, which heartbeats bring back.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA busy_timeout = 5000",
)


def sqlite(path: Path) -> sa.URL:
    """Return the address of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path))


async def open_store(url: sa.URL) -> transactions.SqlStore:
    """Bring a database to the newest schema and open it. Raises `Internal`."""
    return transactions.SqlStore(await asyncio.to_thread(_prepare, url))


def migrate(url: sa.URL) -> None:
    """Run the migrations that a database has not seen, all in one transaction. Blocks. Raises `Internal`."""
    settings = config.Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = sa.create_engine(url, **_options(url))
    _listen(engine)
    try:
        with engine.begin() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except alembic_errors.CommandError as error:
        raise errors.Internal(f"cannot migrate the database: {error}", hint="is it from a newer version?") from error
    except sa.exc.SQLAlchemyError as error:
        raise errors.Internal(f"cannot open the database {url.database!r}: {error}") from error
    finally:
        engine.dispose()


def _prepare(url: sa.URL) -> sa_asyncio.AsyncEngine:
    migrate(url)
    engine = sa_asyncio.create_async_engine(_async_url(url), **_options(url))
    _listen(engine.sync_engine)
    return engine


def _async_url(url: sa.URL) -> sa.URL:
    return url.set(drivername="sqlite+aiosqlite") if url.get_backend_name() == "sqlite" else url


def _options(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return {}
    # One connection: SQLite has one writer, and a second would only find it busy. Without an isolation level the driver
    # begins no transaction behind our back, so `_listen` begins them, and table changes are part of them.
    return {"pool_size": 1, "max_overflow": 0, "connect_args": {"isolation_level": None}}


def _listen(engine: sa.Engine) -> None:
    if engine.dialect.name != "sqlite":
        return

    def connected(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begun)
