"""What every store must do. A new database is one more line in `STORES`."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from traforo.domain import errors, workers
from traforo.store import contract, databases, memory

Opener = Callable[[], Awaitable[contract.Store]]


async def open_memory(_path: Path) -> contract.Store:
    return memory.MemoryStore()


async def open_sqlite(path: Path) -> contract.Store:
    return await databases.open_store(databases.sqlite(path / "control.sqlite3"))


STORES = {"memory": open_memory, "sqlite": open_sqlite}


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[contract.Store]:
    opened = await STORES[request.param](tmp_path)
    yield opened
    await opened.close()


def member(name: str, digest: str = "", **lease: float) -> workers.Member:
    return workers.Member(
        worker=workers.Worker(
            worker_id=name,
            hostname=f"{name}.example",
            base_url=f"https://{name}.example:8081",
            hardware_sku="m5.large",
            virtualizations=("container", "gvisor"),
            total_cores=2.5,
            total_memory_mib=2**40,
            max_live_sandboxes=1024,
        ),
        hash=digest or name * 32,
        registered_at=1700000000.123,
        lease=workers.Lease(heartbeat_at=1700000001.5, expires_at=lease.get("expires_at", 1700000121.5)),
    )


A, B, C = member("a"), member("b"), member("c")


async def test_new_store_is_empty(store: contract.Store) -> None:
    assert (list(await store.members()), list(await store.used_tokens(0.0))) == ([], [])


async def test_member_comes_back_as_it_was(store: contract.Store) -> None:
    """Every field survives, times to the last bit, and members come in the order of their ids."""
    await store.write(contract.Batch(put=[C, A]))
    assert list(await store.members()) == [A, C]


async def test_put_replaces_as_a_whole(store: contract.Store) -> None:
    await store.write(contract.Batch(put=[A, B]))
    moved = dataclasses.replace(A, worker=dataclasses.replace(A.worker, base_url="http://new:1"), hash="f" * 32)
    await store.write(contract.Batch(put=[moved]))
    assert list(await store.members()) == [moved, B]


async def test_removed_members_are_gone(store: contract.Store) -> None:
    """Removing who is not there is fine."""
    await store.write(contract.Batch(put=[A, B]))
    await store.write(contract.Batch(removed=["a", "nobody"]))
    assert list(await store.members()) == [B]


async def test_lease_is_renewed_alone(store: contract.Store) -> None:
    """A renewal changes the lease of those that are there, and makes nobody up."""
    await store.write(contract.Batch(put=[A, B]))
    lease = workers.Lease(heartbeat_at=1.25, expires_at=2.5, live_sandboxes=7)
    await store.write(contract.Batch(renewed={"a": lease, "nobody": lease}))
    assert list(await store.members()) == [dataclasses.replace(A, lease=lease), B]


async def test_hash_may_change_hands_in_one_batch(store: contract.Store) -> None:
    """An heir gets the hash of a removed worker, and two workers may swap theirs."""
    await store.write(contract.Batch(put=[A, B]))
    await store.write(contract.Batch(put=[dataclasses.replace(A, hash=B.hash), dataclasses.replace(B, hash=A.hash)]))
    heir = member("c", digest=B.hash)
    await store.write(contract.Batch(removed=["a"], put=[heir]))
    assert [(m.worker.worker_id, m.hash) for m in await store.members()] == [("b", A.hash), ("c", B.hash)]


async def test_batch_is_all_or_nothing(store: contract.Store) -> None:
    """A batch that cannot be carried out as a whole changes nothing at all."""
    await store.write(contract.Batch(put=[A]))
    with pytest.raises(errors.Internal):
        await store.write(
            contract.Batch(
                removed=["a"], put=[B, member("c", digest=B.hash)], used_tokens=[contract.UsedToken("t", 9e9)]
            )
        )
    assert (list(await store.members()), list(await store.used_tokens(0.0))) == ([A], [])


async def test_empty_batch_changes_nothing(store: contract.Store) -> None:
    await store.write(contract.Batch(put=[A]))
    await store.write(contract.Batch())
    assert list(await store.members()) == [A]


async def test_used_tokens_are_remembered_until_they_expire(store: contract.Store) -> None:
    await store.write(contract.Batch(used_tokens=[contract.UsedToken("t2", 20.0), contract.UsedToken("t1", 10.0)]))
    assert list(await store.used_tokens(9.0)) == [contract.UsedToken("t1", 10.0), contract.UsedToken("t2", 20.0)]
    assert list(await store.used_tokens(10.0)) == [contract.UsedToken("t2", 20.0)]


async def test_used_token_keeps_its_later_expiry(store: contract.Store) -> None:
    """A token id is never forgotten earlier because it was used again, within a batch or across two."""
    await store.write(contract.Batch(used_tokens=[contract.UsedToken("t", 20.0), contract.UsedToken("t", 10.0)]))
    await store.write(contract.Batch(used_tokens=[contract.UsedToken("t", 15.0)]))
    assert list(await store.used_tokens(0.0)) == [contract.UsedToken("t", 20.0)]
    await store.write(contract.Batch(used_tokens=[contract.UsedToken("t", 30.0)]))
    assert list(await store.used_tokens(0.0)) == [contract.UsedToken("t", 30.0)]


async def test_expired_tokens_are_dropped(store: contract.Store) -> None:
    tokens = [contract.UsedToken("t1", 10.0), contract.UsedToken("t2", 20.0)]
    await store.write(contract.Batch(used_tokens=tokens))
    await store.write(contract.Batch(tokens_expired_at=10.0))
    assert list(await store.used_tokens(0.0)) == [contract.UsedToken("t2", 20.0)]


async def test_hostile_text_is_only_text(store: contract.Store) -> None:
    """What a worker says of itself never becomes part of a statement."""
    evil = dataclasses.replace(
        A, worker=dataclasses.replace(A.worker, worker_id="a'; DROP TABLE workers; --", hostname='"\\%_é')
    )
    await store.write(contract.Batch(put=[evil]))
    await store.write(contract.Batch(removed=["%"]))
    assert list(await store.members()) == [evil]


async def test_big_batches(store: contract.Store) -> None:
    """A batch has no size at which a database's limit on parameters would show."""
    many = [member(f"w{number:05}", digest=f"{number:032x}") for number in range(5000)]
    tokens = [contract.UsedToken(f"t{number:05}", 9.0) for number in range(40_000)]
    await store.write(contract.Batch(put=many, used_tokens=tokens))
    await store.write(contract.Batch(renewed={m.worker.worker_id: workers.Lease(1.0, 2.0) for m in many}))
    assert (len(await store.members()), len(await store.used_tokens(0.0))) == (5000, 40_000)


async def test_closing_twice_is_fine(store: contract.Store) -> None:
    await store.close()
    await store.close()


NAMES = st.sampled_from(["a", "b", "c"])
BATCHES = st.builds(
    contract.Batch,
    removed=st.lists(NAMES, unique=True),
    put=st.lists(st.sampled_from([A, B, C, member("a", digest=B.hash)]), unique_by=lambda m: m.worker.worker_id),
    renewed=st.dictionaries(NAMES, st.builds(workers.Lease, st.floats(0, 9), st.floats(0, 9), st.integers(0, 2**40))),
    used_tokens=st.lists(st.builds(contract.UsedToken, NAMES, st.floats(0, 9))),
    tokens_expired_at=st.none() | st.floats(0, 9),
)


async def outcome(store: contract.Store, batch: contract.Batch) -> tuple[bool, list[object], list[object]]:
    try:
        await store.write(batch)
        written = True
    except errors.Internal:
        written = False
    return written, list(await store.members()), list(await store.used_tokens(0.0))


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(BATCHES, max_size=6))
async def test_sqlite_agrees_with_the_model(
    tmp_path_factory: pytest.TempPathFactory, batches: list[contract.Batch]
) -> None:
    """Whatever is written in whatever order, the database and the dictionary hold the same."""
    model, real = memory.MemoryStore(), await open_sqlite(tmp_path_factory.mktemp("store"))
    try:
        for batch in batches:
            assert await outcome(real, batch) == await outcome(model, batch)
    finally:
        await real.close()
