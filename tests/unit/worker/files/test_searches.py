"""Text in files, as a search finds it."""

import asyncio
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import globs, searches
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


async def test_others_have_their_turn() -> None:
    """However long an entry takes to be compared with a pattern, the next one waits for those who wait."""
    deep = "a/" * 250
    facts = [contract.FileStat(f"/{deep}{number}", contract.FileKind.FILE, 0, 0o644, 0, 0, 0.0) for number in range(60)]
    turns = 0

    async def look() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class Files:
        async def list(self, *_: object, **__: object) -> contract.Listing:
            return contract.Listing(facts, truncated=False)

    looking = asyncio.create_task(look())
    glob = globs.Glob("**/" + "a/" * 125 + "b")
    inside = typing.cast("contract.Files", Files())
    found = await searches.find(inside, "/", user="root", glob=glob, kind=None, after=None, limit=10)
    looking.cancel()
    assert (found, turns > 10) == (([], False), True)
