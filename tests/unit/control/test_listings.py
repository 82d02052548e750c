from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.control import listings
from traforo.domain import errors

HASHES = ("0" * 32, "1" * 32, "2" * 32)


def ulid(number: int) -> str:
    return f"{number:026d}"


def sandbox(number: int, digest: str = HASHES[0]) -> dict[str, Any]:
    return {"sandbox_id": f"sbx_{digest}_{ulid(number)}", "state": "running"}


def page_of(numbers: list[int], cursor: str | None, limit: int, digest: str = HASHES[0]) -> listings.Page:
    """What a worker answers that has these sandboxes."""
    rest = sorted((number for number in numbers if cursor is None or ulid(number) < cursor), reverse=True)
    shown = rest[:limit]
    more = ulid(shown[-1]) if len(rest) > limit else None
    return listings.page([sandbox(number, digest) for number in shown], more)


def numbers(page: listings.Page) -> list[int]:
    return [int(row.ulid) for row in page.rows]


def test_one_page_stays_as_it_is() -> None:
    """With one worker the list is simply its page."""
    only = page_of([1, 2, 3, 4], None, 2)
    assert listings.merge([only], 2) == only


def test_no_pages_are_an_empty_one() -> None:
    assert listings.merge([], 10) == listings.Page([], None)


def test_newest_come_first_across_workers() -> None:
    merged = listings.merge([page_of([1, 4], None, 10), page_of([2, 3], None, 10)], 10)
    assert (numbers(merged), merged.next_cursor) == ([4, 3, 2, 1], None)


def test_limit_holds_across_workers() -> None:
    merged = listings.merge([page_of([1, 4], None, 3), page_of([2, 3], None, 3)], 3)
    assert (numbers(merged), merged.next_cursor) == ([4, 3, 2], ulid(2))


def test_short_page_hides_what_is_older() -> None:
    """A worker that gave less than it was asked for may have some newer than the others' oldest: those wait."""
    merged = listings.merge([page_of([8, 7, 6, 5], None, 2), page_of([4, 9], None, 10)], 10)
    assert (numbers(merged), merged.next_cursor) == ([9, 8, 7], ulid(7))


def test_empty_page_with_a_cursor_moves_on() -> None:
    """A page may be empty and still not be the last."""
    merged = listings.merge([listings.page([], ulid(5)), page_of([4], None, 10)], 10)
    assert (numbers(merged), merged.next_cursor) == ([], ulid(5))


def test_rows_are_passed_on_whole() -> None:
    [row] = listings.page([sandbox(1)], None).rows
    assert row.sandbox == sandbox(1)


@pytest.mark.parametrize("sandboxes", [[{}], [{"sandbox_id": None}], [{"sandbox_id": "../etc"}]])
def test_page_without_proper_ids_is_refused(sandboxes: list[dict[str, Any]]) -> None:
    with pytest.raises(errors.MalformedId):
        listings.page(sandboxes, None)


@pytest.mark.parametrize("cursor", ["", "x", ulid(1) + "0", ulid(1)[:-1] + "U"])
def test_page_without_a_proper_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        listings.page([], cursor)


@given(
    owned=st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=3),
    limit=st.integers(1, 5),
    short=st.integers(1, 5),
)
def test_paging_shows_everything_once(owned: list[set[int]], limit: int, short: int) -> None:
    """From page to page every sandbox of every worker appears once, newest first, though one gives short pages."""
    seen: set[int] = set()
    disjoint = []
    for mine in owned:
        disjoint.append(sorted(mine - seen))
        seen |= mine
    shown: list[int] = []
    cursor: str | None = None
    for _ in range(200):
        limits = [min(limit, short), *([limit] * (len(disjoint) - 1))]
        pages = [page_of(mine, cursor, most) for mine, most in zip(disjoint, limits, strict=True)]
        merged = listings.merge(pages, limit)
        shown += numbers(merged)
        cursor = merged.next_cursor
        if cursor is None:
            break
    assert shown == sorted(seen, reverse=True)
