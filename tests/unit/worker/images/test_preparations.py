"""Prepared images on disk: there completely or not at all."""

import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import descriptors
from traforo.domain import errors
from traforo.worker.images.preparations import Record, Shelf
from traforo.worker.runtimes.contract import Lower, Rootfs

RECORD = Record(
    reference="dir:/x",
    kind="oci-layout",
    bytes=3,
    entries=1,
    env={"A": "b"},
    user="app",
    cwd="/app",
    lowers=[("/usr", "/usr"), ("mask", "/usr/src")],
)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path / "state" / "images")
    made.open()
    return made


def fill(directory: Path) -> Record:
    (directory / "rootfs" / "file").write_text("abc")
    return RECORD


def names(shelf: Shelf) -> list[str]:
    return sorted(path.name for path in shelf.directory.iterdir())


def test_nobody_else_can_reach_into_it(shelf: Shelf) -> None:
    """Set-id files of images would be a gift to other users of the host. Whatever its mode was, it is private."""
    assert stat.S_IMODE(shelf.directory.stat().st_mode) == 0o700
    shelf.directory.chmod(0o755)
    shelf.open()
    assert stat.S_IMODE(shelf.directory.stat().st_mode) == 0o700


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    """Somebody else may have put it there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").symlink_to("elsewhere")
    with pytest.raises(errors.StartFailed, match="does not belong"):
        Shelf(tmp_path / "images").open()


def test_a_made_image_is_found(shelf: Shelf) -> None:
    """With its record; also by a later process."""
    assert shelf.find("key") is None
    assert shelf.make("key", fill) == RECORD
    again = Shelf(shelf.directory)
    again.open()
    assert again.find("key") == RECORD
    assert list(again.all()) == [("key", RECORD)]
    assert (shelf.directory / "key/rootfs/file").read_text() == "abc"
    assert names(shelf) == ["key"]


def test_what_a_runtime_mounts(shelf: Shelf) -> None:
    """The root first; sources that are not absolute lie beside it."""
    home = shelf.directory / "key"
    assert shelf.rootfs("key", RECORD, "dir:/asked") == Rootfs(
        image="dir:/asked",
        lowers=(Lower(f"{home}/rootfs", "/"), Lower("/usr", "/usr"), Lower(f"{home}/mask", "/usr/src")),
        env={"A": "b"},
        user="app",
        cwd="/app",
    )


def test_a_failure_leaves_nothing(shelf: Shelf) -> None:
    """Whatever went wrong in the middle."""

    def fail(directory: Path) -> Record:
        fill(directory)
        raise errors.InvalidRequest("broken")

    with pytest.raises(errors.InvalidRequest, match="broken"):
        shelf.make("key", fail)
    assert names(shelf) == []


def test_another_process_that_was_quicker_wins(shelf: Shelf) -> None:
    """What is there may be mounted already, so it stays."""

    def slow(directory: Path) -> Record:
        shelf.make("key", fill)
        (directory / "rootfs" / "other").write_text("mine")
        return Record(reference="mine", kind="dir", bytes=0, entries=0, env={}, user="root")

    assert shelf.make("key", slow) == RECORD
    assert names(shelf) == ["key"]
    assert [path.name for path in (shelf.directory / "key/rootfs").iterdir()] == ["file"]


def test_removing(shelf: Shelf) -> None:
    """Twice is fine; others stay."""
    shelf.make("key", fill)
    shelf.make("other", fill)
    shelf.remove("key")
    shelf.remove("key")
    assert names(shelf) == ["other"]


def test_damaged_records_are_a_defect(shelf: Shelf) -> None:
    """Nobody but the worker writes there."""
    shelf.make("key", fill)
    (shelf.directory / "key/image.json").write_text("{")
    with pytest.raises(errors.Internal):
        shelf.find("key")


def test_half_made_images_are_removed_at_start(shelf: Shelf) -> None:
    """And whole ones, files and those that a living process makes at this moment stay."""
    shelf.make("key", fill)
    (shelf.directory / ".making-old/rootfs/deep").mkdir(parents=True)
    with shelf.scratch() as busy:
        Shelf(shelf.directory).open()
        assert names(shelf) == sorted([busy.name, "key"])
    Shelf(shelf.directory).open()
    assert names(shelf) == ["key"]


@pytest.mark.parametrize("moment", ["while it is filled", "before it is renamed", "after it is renamed"])
def test_killed_in_the_middle(moment: str, shelf: Shelf) -> None:
    """A worker that dies at any moment leaves the whole image or none, and the next one goes on."""
    script = """
        import os, pathlib, signal, sys
        from traforo.worker.images import preparations

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        def fill(directory):
            (directory / "rootfs" / "file").write_text("abc")
            if sys.argv[2] == "while it is filled":
                die()
            return preparations.Record("dir:/x", "oci-layout", 3, 1, {}, "app")

        if sys.argv[2] == "before it is renamed":
            preparations._write_through = die
        if sys.argv[2] == "after it is renamed":
            preparations._sync = die
        shelf = preparations.Shelf(pathlib.Path(sys.argv[1]))
        shelf.open()
        shelf.make("key", fill)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(shelf.directory), moment]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (-9, "")
    later = Shelf(shelf.directory)
    later.open()
    whole = moment == "after it is renamed"
    assert names(later) == (["key"] if whole else [])
    assert (later.find("key") is not None) == whole
    later.make("key", fill)
    assert (later.directory / "key/rootfs/file").read_text() == "abc"


def test_no_descriptor_stays_open(shelf: Shelf) -> None:
    """Locks included."""
    before = descriptors.currently_open()
    shelf.make("key", fill)
    shelf.remove("key")
    shelf.open()
    assert descriptors.currently_open() == before
