"""The store over SQL: each method of the contract is one transaction.

Rows are turned into records here and nowhere else, and what the database raises leaves as an error of the domain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext import asyncio as sa_asyncio

from traforo.domain import errors, workers
from traforo.store import contract, tables

Result = TypeVar("Result")

_MEMBER = tables.members.c
_TOKEN = tables.used_tokens.c

_SELECT_MEMBERS = sa.select(tables.members).order_by(_MEMBER.worker_id)
_INSERT_MEMBER = sa.insert(tables.members)
_DELETE_MEMBER = sa.delete(tables.members).where(_MEMBER.worker_id == sa.bindparam("of"))
_RENEW_MEMBER = sa.update(tables.members).where(_MEMBER.worker_id == sa.bindparam("of"))
_SELECT_TOKENS = sa.select(tables.used_tokens).where(_TOKEN.expires_at > sa.bindparam("now")).order_by(_TOKEN.jti)
# A token that is known with a later expiry stays; said so that no database needs an upsert of its own.
_DELETE_TOKEN = sa.delete(tables.used_tokens).where(
    _TOKEN.jti == sa.bindparam("of"), _TOKEN.expires_at <= sa.bindparam("until")
)
_INSERT_TOKEN = sa.insert(tables.used_tokens).from_select(
    ["jti", "expires_at"],
    sa.select(
        sa.cast(sa.bindparam("of"), tables.used_tokens.c.jti.type),
        sa.cast(sa.bindparam("until"), tables.used_tokens.c.expires_at.type),
    ).where(~sa.exists().where(_TOKEN.jti == sa.bindparam("of"))),
)
_EXPIRE_TOKENS = sa.delete(tables.used_tokens).where(_TOKEN.expires_at <= sa.bindparam("until"))


class SqlStore:
    """A `Store` over an engine whose database has the newest schema; see `databases.open_store`."""

    def __init__(self, engine: sa_asyncio.AsyncEngine) -> None:
        self._engine = engine
        self._running: set[asyncio.Task[Any]] = set()

    async def members(self) -> Sequence[workers.Member]:
        """Return every member, in the order of their ids."""
        return await self._finished(self._read_members())

    async def used_tokens(self, now: float) -> Sequence[contract.UsedToken]:
        """Return the used tokens that have not expired at `now`, in the order of their ids."""
        return await self._finished(self._read_used_tokens(now))

    async def write(self, batch: contract.Batch) -> None:
        """Carry out a batch as a whole or not at all."""
        await self._finished(self._write(batch))

    async def close(self) -> None:
        """Let go of the database, when what still runs has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._engine.dispose()

    async def _finished(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a transaction to its end even if the caller is cancelled.

        A statement cannot be called back from the driver's thread: cut off here, it would keep its locks there.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _read_members(self) -> Sequence[workers.Member]:
        async with self._transaction("read the workers") as connection:
            rows = await connection.execute(_SELECT_MEMBERS)
            return [_member(row) for row in rows.mappings()]

    async def _read_used_tokens(self, now: float) -> Sequence[contract.UsedToken]:
        async with self._transaction("read the used tokens") as connection:
            rows = await connection.execute(_SELECT_TOKENS, {"now": now})
            return [contract.UsedToken(row.jti, row.expires_at) for row in rows]

    async def _write(self, batch: contract.Batch) -> None:
        async with self._transaction("write") as connection:
            await _write_members(connection, batch)
            await _write_tokens(connection, batch)

    @asynccontextmanager
    async def _transaction(self, purpose: str) -> AsyncIterator[sa_asyncio.AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise errors.Internal(f"cannot {purpose}: {error}") from error


async def _write_members(connection: sa_asyncio.AsyncConnection, batch: contract.Batch) -> None:
    # A replaced member is deleted and inserted, so that hashes may change hands within one batch on any database.
    gone = [*batch.removed, *(member.worker.worker_id for member in batch.put)]
    if gone:
        await connection.execute(_DELETE_MEMBER, [{"of": worker_id} for worker_id in gone])
    if batch.put:
        await connection.execute(_INSERT_MEMBER, [_row(member) for member in batch.put])
    if batch.renewed:
        leases = [{"of": worker_id, **_lease_row(lease)} for worker_id, lease in batch.renewed.items()]
        await connection.execute(_RENEW_MEMBER, leases)


async def _write_tokens(connection: sa_asyncio.AsyncConnection, batch: contract.Batch) -> None:
    if batch.used_tokens:
        latest: dict[str, float] = {}
        for token in batch.used_tokens:
            latest[token.jti] = max(token.expires_at, latest.get(token.jti, token.expires_at))
        tokens = [{"of": jti, "until": until} for jti, until in latest.items()]
        await connection.execute(_DELETE_TOKEN, tokens)
        await connection.execute(_INSERT_TOKEN, tokens)
    if batch.tokens_expired_at is not None:
        await connection.execute(_EXPIRE_TOKENS, {"until": batch.tokens_expired_at})


def _row(member: workers.Member) -> dict[str, Any]:
    worker = member.worker
    return {
        "worker_id": worker.worker_id,
        "hostname": worker.hostname,
        "hash": member.hash,
        "base_url": worker.base_url,
        "hardware_sku": worker.hardware_sku,
        "virtualizations": list(worker.virtualizations),
        "total_cores": worker.total_cores,
        "total_memory_mib": worker.total_memory_mib,
        "max_live_sandboxes": worker.max_live_sandboxes,
        "registered_at": member.registered_at,
        **_lease_row(member.lease),
    }


def _lease_row(lease: workers.Lease) -> dict[str, Any]:
    return {
        "heartbeat_at": lease.heartbeat_at,
        "expires_at": lease.expires_at,
        "live_sandboxes": lease.live_sandboxes,
    }


def _member(row: Mapping[Any, Any]) -> workers.Member:
    return workers.Member(
        worker=workers.Worker(
            worker_id=row["worker_id"],
            hostname=row["hostname"],
            base_url=row["base_url"],
            hardware_sku=row["hardware_sku"],
            virtualizations=tuple(row["virtualizations"]),
            total_cores=row["total_cores"],
            total_memory_mib=row["total_memory_mib"],
            max_live_sandboxes=row["max_live_sandboxes"],
        ),
        hash=row["hash"],
        registered_at=row["registered_at"],
        lease=workers.Lease(
            heartbeat_at=row["heartbeat_at"], expires_at=row["expires_at"], live_sandboxes=row["live_sandboxes"]
        ),
    )
