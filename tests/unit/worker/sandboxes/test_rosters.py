"""The roster: listing by owner, and forgetting in time and number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, ids, specs, states
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, rosters

SPEC = specs.SandboxSpec("host", "container", specs.Resources(1, 64, 32, 10), 60.0)
WORKER = ids.worker_hash("here")


def entry(
    number: int, owner: str | None = None, state: str = "running", ended_at: float | None = None
) -> entries.Entry:
    return entries.Entry(
        id=ids.SandboxId(WORKER, f"{number:026d}"),
        spec=SPEC,
        owner=owner,
        rootfs=contract.Rootfs("host", ()),
        state=states.SandboxState(state),
        created_at=float(number),
        expires_at=99.0,
        ended_at=ended_at,
    )


def numbers(page: rosters.Page) -> list[int]:
    return [int(found.id.ulid) for found in page.entries]


def test_pages_are_newest_first_and_the_callers() -> None:
    """In order of the ids, whatever the order of arrival; nobody else's among them."""
    roster = rosters.Roster(retention=60)
    for number in (3, 1, 5, 2, 4):
        roster.add(entry(number, owner="odd" if number % 2 else "even"))
    first = roster.page("odd", limit=2)
    assert (numbers(first), first.next_cursor) == ([5, 3], f"{3:026d}")
    second = roster.page("odd", limit=2, cursor=first.next_cursor)
    assert (numbers(second), second.next_cursor) == ([1], None)
    assert numbers(roster.page(None)) == [5, 4, 3, 2, 1]
    assert numbers(roster.page("nobody")) == []


def test_a_page_can_be_of_one_state() -> None:
    """The state is that of the moment."""
    roster = rosters.Roster(retention=60)
    roster.add(entry(1))
    roster.add(entry(2, state="stopped"))
    assert numbers(roster.page(None, state=states.SandboxState.STOPPED)) == [2]


@pytest.mark.parametrize("cursor", ["", "x", "0" * 25, "0" * 27, "8" + "0" * 25, "u" * 26, "\u0660" * 26])
def test_a_cursor_is_one_of_ours(cursor: str) -> None:
    """Anything else is refused and named."""
    with pytest.raises(errors.InvalidRequest) as caught:
        rosters.Roster(retention=60).page(None, cursor=cursor)
    assert caught.value.fields == {"field": "cursor"}


@given(st.sets(st.integers(0, 1000), max_size=40), st.integers(1, 10))
def test_pages_together_are_everything(found: set[int], limit: int) -> None:
    """Going from cursor to cursor meets each sandbox once."""
    roster = rosters.Roster(retention=60)
    for number in found:
        roster.add(entry(number))
    seen: list[int] = []
    page = roster.page(None, limit=limit)
    seen += numbers(page)
    while page.next_cursor is not None:
        page = roster.page(None, limit=limit, cursor=page.next_cursor)
        seen += numbers(page)
    assert seen == sorted(found, reverse=True)


def test_ended_ones_can_be_read_for_a_while() -> None:
    """Exactly as long as the retention, counted from the end."""
    roster = rosters.Roster(retention=60)
    for number in (1, 2):
        ended = entry(number, ended_at=float(number))
        roster.add(ended)
        assert roster.retire(ended) == []
    assert roster.prune(60.999) == []
    assert [int(gone.id.ulid) for gone in roster.prune(61.0)] == [1]
    assert roster.get(entry(1).text_id) is None
    assert roster.get(entry(2).text_id) is not None
    assert (len(roster), roster.ended) == (1, 1)


def test_ended_ones_are_bounded() -> None:
    """The longest ended make room; live ones do not count."""
    roster = rosters.Roster(retention=60, max_ended=2)
    roster.add(entry(0))
    pushed = []
    for number in (1, 2, 3):
        ended = entry(number, owner="alice", ended_at=float(number))
        roster.add(ended)
        pushed += roster.retire(ended)
    assert [int(gone.id.ulid) for gone in pushed] == [1]
    assert numbers(roster.page("alice")) == [3, 2]
    assert len(roster) == 3


def test_one_id_is_one_sandbox() -> None:
    """An id that is there already is a defect."""
    roster = rosters.Roster(retention=60)
    roster.add(entry(1))
    with pytest.raises(errors.Internal):
        roster.add(entry(1))
