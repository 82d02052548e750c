import pytest

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
