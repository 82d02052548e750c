"""Patterns of paths."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import globs


@pytest.mark.parametrize(
    "pattern, path, fits",
    [
        ("*.py", "a.py", True),
        ("*.py", "x/y/a.py", True),
        ("*.py", "a.pyc", False),
        ("x/*.py", "x/a.py", True),
        ("x/*.py", "x/y/a.py", False),
        ("/x/*.py", "x/a.py", True),
        ("**/a.py", "a.py", True),
        ("x/**/a.py", "x/a.py", True),
        ("x/**/a.py", "x/1/2/a.py", True),
        ("x/**/a.py", "y/x/a.py", False),
        ("**", "anything/at/all", True),
        ("?", "ab", False),
        ("[ab]c", "bc", True),
        ("[!ab]c", "bc", False),
        ("**/t*/**/x", "a/t/b/t2/q/x", True),
        ("**/t*/**/y/x", "a/t/b/t2/q/x", False),
        ("a\udcff*", "a\udcff\udcfe", True),
        ("A", "a", False),
    ],
)
def test_fits(pattern: str, path: str, fits: bool) -> None:
    """A star stays within a name, two cross directories, and without a slash a pattern is about names."""
    assert globs.Glob(pattern).fits(path) is fits


def test_directories_only() -> None:
    """A slash at the end asks for directories."""
    glob = globs.Glob("a*/")
    assert (glob.fits("x/ab", directory=True), glob.fits("x/ab", directory=False)) == (True, False)


def test_limits() -> None:
    """A pattern is neither empty nor endless."""
    for empty in ("", "/", "//", "a\0b"):
        with pytest.raises(errors.InvalidRequest):
            globs.Glob(empty)
    with pytest.raises(errors.TooLarge):
        globs.Glob("x" * (globs.MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "pattern, path",
    [
        ("*a" * 500 + "b", "a" * 255),
        ("**/a/" * 200 + "b", "a/" * 2000 + "c"),
        ("a/" + "**/x/" * 150 + "y", "a/" + "x/" * 1900 + "z"),
    ],
)
def test_hostile_patterns_end(pattern: str, path: str) -> None:
    """A pattern and a path made to make each other slow are compared all the same."""
    assert globs.Glob(pattern).fits(path) is False


names = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5)
parts = st.lists(st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=3)), min_size=1, max_size=5)


@given(names, parts)
def test_like_an_expression(path: list[str], pattern: list[str]) -> None:
    """It finds what a plain expression that tries everything finds."""
    pattern = [part for part in pattern if part == "**" or "**" not in part] or ["a"]
    text = "".join(
        "(?:[^/]+/)*" if part == "**" else re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]") + "/"
        for part in pattern
    )
    expected = re.fullmatch(text, "/".join(path) + "/") is not None
    assert globs.Glob("/" + "/".join(pattern)).fits("/".join(path)) is expected


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_pattern(pattern: str, path: str) -> None:
    """Any text is a pattern or refused, and nothing else."""
    with contextlib.suppress(errors.InvalidRequest):
        globs.Glob(pattern).fits(path)
