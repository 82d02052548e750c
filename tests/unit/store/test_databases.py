import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime import migration

from traforo.domain import errors, workers
from traforo.store import contract, databases, tables

MEMBER = workers.Member(
    worker=workers.Worker(worker_id="w", hostname="h", base_url="http://h"),
    hash="0" * 32,
    registered_at=1.0,
    lease=workers.Lease(heartbeat_at=1.0, expires_at=2.0),
)


@pytest.fixture
def url(tmp_path: Path) -> sa.URL:
    return databases.sqlite(tmp_path / "50% of a store.sqlite3")


def test_migrations_end_in_the_tables(url: sa.URL) -> None:
    """Running every migration gives exactly the tables that the code speaks of."""
    databases.migrate(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = autogenerate.compare_metadata(migration.MigrationContext.configure(connection), tables.metadata)
    engine.dispose()
    assert found == []


def test_migrating_again_changes_nothing(url: sa.URL) -> None:
    databases.migrate(url)
    databases.migrate(url)


async def test_what_was_written_survives(url: sa.URL) -> None:
    """A store that is opened anew, as after a restart, holds what the last one wrote."""
    for expected in ([], [MEMBER]):
        store = await databases.open_store(url)
        assert list(await store.members()) == expected
        await store.write(contract.Batch(put=[MEMBER]))
        await store.close()


async def test_writes_at_once_take_turns(url: sa.URL) -> None:
    """Callers that come together wait for each other instead of finding the database busy."""
    store = await databases.open_store(url)
    tokens = [contract.UsedToken(f"t{number:02}", 9.0) for number in range(20)]
    await asyncio.gather(*(store.write(contract.Batch(used_tokens=[token])) for token in tokens))
    assert list(await store.used_tokens(0.0)) == tokens
    await store.close()


def test_newer_database_is_refused(url: sa.URL) -> None:
    """A database of a later version is left alone, with an error that says so."""
    databases.migrate(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(errors.Internal) as caught:
        databases.migrate(url)
    assert (caught.value.hint, "9999" in caught.value.message) == ("is it from a newer version?", True)


async def test_failed_migration_leaves_nothing(url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations are one transaction: after a failure the next start finds what was there before."""

    def fail(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("CREATE INDEX", None, Exception("disk full"))

    with monkeypatch.context() as patched:
        patched.setattr("alembic.op.create_index", fail)
        with pytest.raises(errors.Internal):
            await databases.open_store(url)
    store = await databases.open_store(url)
    assert list(await store.members()) == []
    await store.close()


def test_file_that_is_no_database(url: sa.URL) -> None:
    """What the driver raises leaves as an error of the domain."""
    assert url.database is not None
    Path(url.database).write_text("not a database" * 100)
    with pytest.raises(errors.Internal):
        databases.migrate(url)


async def test_database_that_went_away(url: sa.URL) -> None:
    """Errors of a running store are translated as well, reading and writing."""
    store = await databases.open_store(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE workers")
        connection.exec_driver_sql("DROP TABLE used_tokens")
    engine.dispose()
    with pytest.raises(errors.Internal, match="cannot read the workers"):
        await store.members()
    with pytest.raises(errors.Internal, match="cannot read the used tokens"):
        await store.used_tokens(0.0)
    with pytest.raises(errors.Internal, match="cannot write"):
        await store.write(contract.Batch(put=[MEMBER]))
    await store.close()
