"""Which files a reference may reach."""

import os
from pathlib import Path

import pytest

from tests import descriptors
from traforo.domain import errors
from traforo.worker.images import paths


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A root with a file in it and links that lead here and there; a secret beside it."""
    root = tmp_path / "allowed"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("in")
    (tmp_path / "secret").write_text("out")
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "file").write_text("out")
    (root / "inner").symlink_to("file")
    (root / "outer").symlink_to("../secret")
    (root / "up").symlink_to("..")
    (root / "gone").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    return root


def content(path: str, roots: paths.Roots) -> bytes:
    descriptor = paths.open_file(path, roots)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["file", "inner", "sub/../file", "up/allowed/file"])
def test_what_lies_in_a_root_is_opened(name: str, allowed: Path) -> None:
    """By whatever way, once it is resolved."""
    assert content(f"{allowed}/{name}", paths.Roots.of([allowed])) == b"in"
    assert content(f"{allowed}/{name}", paths.Roots.of(["/nowhere", allowed])) == b"in"


@pytest.mark.parametrize(
    "name",
    [
        "outer",
        "up/secret",
        "../secret",
        "../allowed-not/file",
        "up/allowed-not/file",
        "missing",
        "gone",
        "loop",
        "file/x",
    ],
)
def test_what_does_not_is_not_found(name: str, allowed: Path) -> None:
    """Outside and missing look the same, so a caller learns nothing about the host."""
    with pytest.raises(errors.NotFound, match="cannot find image file") as caught:
        content(f"{allowed}/{name}", paths.Roots.of([allowed]))
    assert caught.value.fields["kind"] == "image"


def test_outside_and_missing_outside_are_the_same(allowed: Path) -> None:
    """Whether a file of the host exists is nobody's business."""
    messages = []
    for name in ("secret", "missing"):
        with pytest.raises(errors.NotFound) as caught:
            content(f"{allowed.parent}/{name}", paths.Roots.of([allowed]))
        messages.append((caught.value.message.replace(f"/{name}'", "/x'"), caught.value.hint))
    assert messages[0] == messages[1]


def test_a_root_may_be_a_link(allowed: Path) -> None:
    """The operator moves it; what it leads to counts."""
    link = allowed.parent / "images"
    link.symlink_to(allowed)
    assert content(f"{link}/file", paths.Roots.of([link])) == b"in"
    assert content(f"{allowed}/file", paths.Roots.of([link])) == b"in"


def test_no_roots_allow_everything_or_nothing(allowed: Path) -> None:
    """None is what a worker for one person has, an empty list what production has until it is set."""
    assert content(f"{allowed}/outer", paths.Roots.of(None)) == b"out"
    with pytest.raises(errors.NotFound):
        content(f"{allowed}/file", paths.Roots.of([]))


def test_a_link_that_is_put_in_between_changes_nothing(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is judged again, by its descriptor."""
    real = os.open

    def late_swap(path: str, flags: int) -> int:
        return real(allowed.parent / "secret", flags)

    monkeypatch.setattr(os, "open", late_swap)
    before = descriptors.currently_open()
    with pytest.raises(errors.NotFound):
        paths.open_file(f"{allowed}/file", paths.Roots.of([allowed]))
    assert descriptors.currently_open() == before


def test_only_regular_files_are_opened(allowed: Path) -> None:
    """And a FIFO does not hold the worker up."""
    os.mkfifo(allowed / "fifo")
    for name in ("fifo", "sub"):
        with pytest.raises(errors.InvalidRequest, match="not a regular file"):
            paths.open_file(f"{allowed}/{name}", paths.Roots.of(None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_cannot_be_read(allowed: Path) -> None:
    """Are there, but of no use."""
    (allowed / "file").chmod(0)
    with pytest.raises(errors.InvalidRequest, match="cannot be read"):
        paths.open_file(f"{allowed}/file", paths.Roots.of(None))


def test_directories(allowed: Path) -> None:
    """Resolved, with facts; a file is no directory."""
    resolved, facts = paths.check_directory(f"{allowed}/up/allowed", paths.Roots.of([allowed]))
    assert (resolved, facts.st_ino) == (str(allowed), allowed.stat().st_ino)
    with pytest.raises(errors.InvalidRequest, match="not a directory"):
        paths.check_directory(f"{allowed}/file", paths.Roots.of([allowed]))
    with pytest.raises(errors.NotFound):
        paths.check_directory(f"{allowed}/up", paths.Roots.of([allowed]))


def test_identity_changes_when_a_file_does(allowed: Path) -> None:
    """When it is written, replaced, or given another content of the same size."""
    path = allowed / "file"
    seen = {paths.identity(path.stat())}
    os.utime(path, ns=(1, 1))
    seen.add(paths.identity(path.stat()))
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    seen.add(paths.identity(path.stat()))
    (allowed / "new").write_text("longer")
    os.utime(allowed / "new", ns=(1, 1))
    (allowed / "new").rename(path)
    seen.add(paths.identity(path.stat()))
    assert len(seen) == 4
