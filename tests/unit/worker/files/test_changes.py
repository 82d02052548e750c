"""What changed, as clients of a watch read it."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import clocks, errors
from traforo.worker.files import changes
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities

OVERFLOW = contract.Change(contract.ChangeKind.OVERFLOW, "/d")


def change(number: int) -> contract.Change:
    return contract.Change(contract.ChangeKind.CREATED, f"/d/{number}")


@given(st.integers(1, 6), st.lists(st.one_of(st.just("change"), st.just("overflow"), st.integers(1, 4)), max_size=40))
def test_a_reader_misses_nothing_unseen(size: int, steps: list[str | int]) -> None:
    """A reader who follows cursors gets every change in order, or is told that some are lost."""
    ring = changes.Ring(size)
    made = 0
    cursor = seen = 0
    lost = False
    for step in steps:
        if step == "change":
            ring.add(change(made))
            made += 1
        elif step == "overflow":
            ring.add(OVERFLOW)
            lost = True
        else:
            assert isinstance(step, int)
            found, cursor, overflow = ring.read(cursor, step)
            numbers = [int(one.path.rpartition("/")[2]) for _, one in found]
            assert numbers == sorted(set(numbers))
            if numbers and numbers[0] != seen:
                assert overflow
            if overflow:
                lost = False
            seen = numbers[-1] + 1 if numbers else made
            assert len(found) <= step
    found, after, overflow = ring.read(cursor, 1000)
    assert after == ring.next_cursor
    assert overflow or not lost
    assert overflow or [int(one.path[3:]) for _, one in found] == list(range(seen, made))


def test_cursors() -> None:
    """A cursor that was never given brings everything that is kept, and says so."""
    ring = changes.Ring(3)
    for number in range(5):
        ring.add(change(number))
    assert [cursor for cursor, _ in ring.read(3, 10)[0]] == [3, 4]
    assert ring.read(5, 10) == ([], 5, False)
    assert (ring.read(99, 10)[1:], ring.read(0, 1)[1:]) == ((5, True), (3, True))


class Inner:
    """A watch of a runtime that says what it is told to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Sequence[contract.Change]] = asyncio.Queue()
        self.closed = 0

    async def changes(self) -> Sequence[contract.Change]:
        return await self.queue.get()

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def activity() -> activities.Activity:
    return activities.Activity(clocks.SystemClock())


async def test_waiting(activity: activities.Activity) -> None:
    """A reader waits for the next change, and for the end."""
    inner = Inner()
    watch = changes.Watch("w", "s", inner, activity.hold())
    task = asyncio.create_task(watch.run())
    assert (await watch.read(0, wait=0.001, limit=5)).changes == []
    reading = asyncio.create_task(watch.read(0, wait=20, limit=5))
    inner.queue.put_nowait([change(0), change(1)])
    page = await reading
    assert ([cursor for cursor, _ in page.changes], page.next_cursor, page.ended) == ([0, 1], 2, False)
    reading = asyncio.create_task(watch.read(2, wait=20, limit=5))
    inner.queue.put_nowait([])
    page = await reading
    assert (page.changes, page.ended, inner.closed) == ([], True, 1)
    await task
    assert activity.holds == 0


async def test_names_of_ours_are_not_told(activity: activities.Activity) -> None:
    """A file that is being placed has one for a moment; what it is called then is all that happened."""
    inner = Inner()
    watch = changes.Watch("w", "s", inner, activity.hold())
    ours, own = "/d/.traforo-0123456789abcdef", "/d/file"
    inner.queue.put_nowait(
        [
            contract.Change(contract.ChangeKind.CREATED, ours),
            contract.Change(contract.ChangeKind.CREATED, own, moved_from=ours),
            contract.Change(contract.ChangeKind.DELETED, ours),
            OVERFLOW,
            contract.Change(contract.ChangeKind.CREATED, own, moved_from="/d/other"),
        ]
    )
    inner.queue.put_nowait([])
    await watch.run()
    found, _, overflow = watch.ring.read(0, 9)
    assert ([(one.path, one.moved_from) for _, one in found], overflow) == ([(own, "/d/other")], True)
    assert watch.ring.next_cursor == 3


async def test_a_sandbox_that_lies(activity: activities.Activity) -> None:
    """A runtime that gives up on its sandbox ends the watch."""

    class Lying(Inner):
        async def changes(self) -> Sequence[contract.Change]:
            raise errors.Lost("the process behind the socket is gone")

    watch = changes.Watch("w", "s", Lying(), activity.hold())
    await watch.run()
    assert (watch.ended, activity.holds) == (True, 0)
