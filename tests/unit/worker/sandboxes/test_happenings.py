"""Events of a sandbox: numbered for good, bounded, waited for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import clocks
from traforo.domain import states
from traforo.worker.sandboxes import happenings

Kind = states.Happening
PORT, CREATED, STOPPED = Kind.PORT_PUBLISHED, Kind.CREATED, Kind.STOPPED


def made(known: list[happenings.Event] | None = None) -> tuple[happenings.Happenings, list[happenings.Event]]:
    kept: list[happenings.Event] = []
    return happenings.Happenings(clocks.FakeClock(), kept.append, known or []), kept


def numbers(found: happenings.Page) -> list[int]:
    return [event.number for event in found.events]


def test_what_is_told_can_be_read() -> None:
    """In order, with time and facts; what belongs into the record of the sandbox is not written by itself."""
    told, kept = made()
    told.tell(CREATED)
    told.tell(PORT, port=80)
    told.tell(STOPPED, reason="deleted")
    page = told.page(0, 10)
    assert (numbers(page), page.next_cursor, page.dropped) == ([0, 1, 2], 3, 0)
    assert page.events[1].shown() == {
        "cursor": 1,
        "ts": "2027-01-15T08:00:00.000Z",
        "type": PORT,
        "facts": {"port": 80},
    }
    assert kept == [page.events[1]]
    assert told.with_record() == (page.events[0], page.events[2])


@given(
    told_before=st.integers(0, 2500),
    cursor=st.integers(0, 3000),
    limit=st.integers(1, 1000),
)
def test_pages_of_any_number(told_before: int, cursor: int, limit: int) -> None:
    """The last 1000 are there; a page begins at its cursor or at the oldest, and says what is missing between."""
    told, _ = made()
    for _ in range(told_before):
        told.tell(PORT)
    oldest = max(0, told_before - happenings.MAX_KEPT)
    page = told.page(cursor, limit)
    first = max(cursor, oldest)
    assert numbers(page) == list(range(first, min(first + limit, told_before)))
    assert page.dropped == first - cursor
    assert page.next_cursor == (page.events[-1].number + 1 if page.events else first)
    assert (told.oldest, told.next) == (oldest, told_before)


@given(st.sets(st.integers(0, 40)), st.randoms(use_true_random=False))
def test_any_remains_are_taken_up(left: set[int], order: object) -> None:
    """From two places and in any order: each number once, from the last gap on, and the next is new."""
    known = [happenings.Event(number, float(number), PORT) for number in left] * 2
    order.shuffle(known)  # type: ignore[attr-defined]  # a Random
    told, _ = made(known)
    found = numbers(told.page(0, 1000))
    assert found == list(range(told.oldest, told.next))
    assert set(found) <= left
    assert not left or (found[-1] == max(left) and min(found) - 1 not in left)
    told.tell(PORT)
    assert told.next == (max(left) + 2 if left else 1)


async def test_waiting() -> None:
    """A reader is woken by the next event, by the end, or when its time is over, and leaves nothing behind."""
    told, _ = made()
    waiting = [asyncio.ensure_future(told.wait(0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    told.tell(PORT)
    await asyncio.gather(*waiting)
    await told.wait(0, 60)  # it is there
    await told.wait(1, 0.001)  # it never comes
    last = asyncio.ensure_future(told.wait(1, 60))
    await asyncio.sleep(0)
    told.end()
    await last
    await told.wait(1, 60)
    assert (told._waiters, told.over) == ([], True)


async def test_one_who_goes_away() -> None:
    """A reader that is cancelled does not keep the others from being woken."""
    told, _ = made()
    first, second = (asyncio.ensure_future(told.wait(0, 60)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    told.tell(PORT)
    await second
    assert told._waiters == []
