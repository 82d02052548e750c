"""Text in files, as a search finds it."""

import asyncio
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import globs, paces, searches
from traforo.worker.runtimes import contract


def scan(data: bytes, text: str, size: int = 7, *, ignore_case: bool = False) -> list[tuple[int, int, str]] | None:
    """Search data that comes in blocks of a size."""
    scanner = searches.Scanner(searches.Needle(text, ignore_case=ignore_case), "/f")
    found: list[searches.Match] = []
    for at in range(0, len(data), size):
        more = scanner.feed(data[at : at + size], 1000)
        if more is None:
            return None
        found += more
    return [(match.line, match.column, match.text) for match in [*found, *scanner.finish(1000)]]


def test_lines() -> None:
    """Each line with the text comes once, with the place of its first occurrence."""
    data = b"one two\nthree\n\ntwo two\r\nlast two"
    assert scan(data, "two") == [(1, 5, "one two"), (4, 1, "two two"), (5, 6, "last two")]
    assert scan(data, "t.o") == []


def test_letters() -> None:
    """Columns are counted in characters, and case is that of the alphabet."""
    data = "ÄÖ ärger\nx\n".encode() + b"\xff\xfe \xc4rger\n"
    assert scan(data, "ÄRGER", ignore_case=True) == [(1, 4, "ÄÖ ärger")]
    assert scan(data, "RGER", ignore_case=True) == [(1, 5, "ÄÖ ärger"), (3, 5, "\ufffd\ufffd \ufffdrger")]


def test_what_is_not_text() -> None:
    """A NUL at the beginning, or a line without end, makes a file binary."""
    assert scan(b"\0two\n", "two") is None
    assert scan(b"x" * (searches.MAX_LINE_BYTES + 5), "x", 100_000) is None


def test_long_lines_are_cut() -> None:
    """Of a long line the part around the occurrence is shown."""
    found = scan(b"a" * 3000 + b"here" + b"b" * 3000 + b"\n", "here", 1000)
    assert found is not None
    line, column, text = found[0]
    assert (line, column, len(text)) == (1, 3001, searches.SHOWN_CHARACTERS)
    assert "here" in text


def test_limit() -> None:
    """No more matches are made than were asked for."""
    found = searches.Scanner(searches.Needle("a"), "/f").feed(b"a\n" * 100, 3)
    assert found is not None
    assert [match.line for match in found] == [1, 2, 3]


def test_needles() -> None:
    """A text is part of one line."""
    for wrong in ("", "a\nb", "a\0"):
        with pytest.raises(errors.InvalidRequest):
            searches.Needle(wrong)
    with pytest.raises(errors.TooLarge):
        searches.Needle("x" * 2000)


@given(
    st.lists(st.text("ab\u00e4", max_size=6), max_size=8),
    st.text("ab\u00e4", min_size=1, max_size=2),
    st.integers(1, 9),
)
def test_like_line_by_line(lines: list[str], text: str, size: int) -> None:
    """Whatever the blocks are, it finds what a search line by line finds."""
    expected = [(number, line.index(text) + 1, line) for number, line in enumerate(lines, 1) if text in line]
    assert scan("\n".join(lines).encode(), text, size) == expected


def test_texts_that_nearly_fit_everywhere() -> None:
    """Time is bounded by what is read, not by its product with what is searched for."""
    block = b"a" * searches.MAX_LINE_BYTES * 8
    for ignore_case in (False, True):
        assert searches.Needle("a" * 1023 + "B", ignore_case=ignore_case).find(block, 0) == -1
    with pytest.raises(errors.TooLarge):
        searches.Needle("\u00e4" * (searches.MAX_LETTERS + 1), ignore_case=True)


class Deep:
    """Files with names that take long to be compared with `GLOB`."""

    def __init__(self, count: int) -> None:
        deep = "a/" * 250
        self.facts = [
            contract.FileStat(f"/{deep}{number}/c", contract.FileKind.FILE, 0, 0o644, 0, 0, 0.0)
            for number in range(count)
        ]

    async def list(self, *_: object, **__: object) -> contract.Listing:
        return contract.Listing(self.facts, truncated=False)


GLOB = "**/" + "a/" * 125 + "b/**/c"


async def find(count: int, work: paces.Paces, glob: globs.Glob) -> tuple[list[contract.FileStat], bool]:
    inside = typing.cast("contract.Files", Deep(count))
    return await searches.find(inside, "/", user="root", work=work, glob=glob, kind=None, after=None, limit=10)


async def test_others_have_their_turn() -> None:
    """However long an entry takes to be compared with a pattern, the next one waits for those who wait."""
    turns = 0

    async def look() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    found = await find(60, paces.Paces(), globs.Glob(GLOB))
    looking.cancel()
    assert (found, turns > 10) == (([], False), True)


async def test_searches_share_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no more is done before others have theirs, and each of them gets on."""
    monkeypatch.setattr(paces, "SLICE_SECONDS", 0.0)
    turn = 0
    done: list[tuple[int, int]] = []

    async def look() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    class Noted(globs.Glob):
        def __init__(self, number: int) -> None:
            super().__init__("nothing")
            self.number = number

        def fits(self, path: str, *, directory: bool = False) -> bool:
            done.append((turn, self.number))
            return super().fits(path, directory=directory)

    looking = asyncio.create_task(look())
    work = paces.Paces()
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(find(5, work, Noted(number)))
    looking.cancel()
    assert len({turn for turn, _ in done}) == len(done) == 20
    assert [number for _, number in done] == [0, 1, 2, 3] * 5


async def test_a_search_that_is_cancelled_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is: before its turn, in the pause, or in the middle of its work."""
    monkeypatch.setattr(paces, "SLICE_SECONDS", 0.0)
    work = paces.Paces()
    for turns in (0, 1, 2, 3, 10):
        going = [asyncio.create_task(find(1000, work, globs.Glob(GLOB))) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in going:
            task.cancel()
        await asyncio.wait(going)
        assert await asyncio.wait_for(find(1, work, globs.Glob("nothing")), 10) == ([], False)


async def test_names_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, and says so."""
    monkeypatch.setattr(searches, "MAX_SECONDS", 0.0)
    with pytest.raises(errors.TooLarge):
        await find(60, paces.Paces(), globs.Glob(GLOB))
