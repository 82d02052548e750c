from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.cli import copies, printers


@pytest.mark.parametrize(
    "text,sandbox_id,path",
    [
        ("sbx_1:/a:b", "sbx_1", "/a:b"),
        ("file", None, "file"),
        ("./a:b", None, "./a:b"),
        ("/abs:x", None, "/abs:x"),
        (":/x", None, ":/x"),
        ("-", None, "-"),
    ],
)
def test_a_place_is_in_a_sandbox_or_here(text: str, sandbox_id: str | None, path: str) -> None:
    """A colon before any slash makes the difference."""
    assert copies.place(text) == copies.Place(sandbox_id, path)


def test_a_relative_path_in_a_sandbox_is_refused() -> None:
    """There is no directory that it could be relative to."""
    with pytest.raises(printers.UsageError, match="absolute"):
        copies.place("sbx_1:file")


@pytest.mark.parametrize("relative", ["", ".", "..", "a/..", "../a", "/a", "a//b", "a/./b", "a/\0b", "a/"])
def test_a_name_from_a_sandbox_cannot_lead_out(relative: str) -> None:
    """Each part is a plain name."""
    with pytest.raises(ValueError, match="cannot copy"):
        copies.safe_parts(relative)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("./\0~"), max_size=20))
def test_whatever_is_accepted_is_below(relative: str) -> None:
    """For any text: it is refused, or it names something below the directory."""
    try:
        path = copies.below(Path("/nowhere/root"), copies.safe_parts(relative))
    except ValueError:
        return
    assert path.is_relative_to("/nowhere/root")
    assert ".." not in path.parts


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    """Wherever in the path it is; the target itself may be one, as the user named it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert copies.below(tmp_path / "link", ("file",)) == tmp_path / "link" / "file"
    for parts in (("link", "file"), ("link",)):
        with pytest.raises(ValueError, match="a link"):
            copies.below(tmp_path, parts)
