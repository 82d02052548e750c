"""Empty files made ahead."""

import os
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from traforo.worker.outputs import blanks

P = ParamSpec("P")
T = TypeVar("T")


class Now(futures.Executor):
    """Runs at once what it is given."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        done: futures.Future[T] = futures.Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[blanks.Blanks]:
    found = blanks.Blanks(tmp_path / "logs", Now())
    yield found
    found.close()
    assert list((tmp_path / "logs").glob(f"{blanks.PREFIX}*")) == []


def test_take(ready: blanks.Blanks, tmp_path: Path) -> None:
    """A file is there when it is wanted, empty, under its name, and open for reading and writing."""
    for number in range(blanks.FULL * 2):
        path = tmp_path / "logs" / f"exec_{number}.0"
        fd = ready.make(str(path))
        os.pwrite(fd, b"%d" % number, 0)
        assert (os.pread(fd, 99, 0), path.read_bytes()) == (b"%d" % number, b"%d" % number)
        os.close(fd)


def test_recycled_files_are_empty(ready: blanks.Blanks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of an earlier content is in a file that is used again."""
    monkeypatch.setattr(blanks, "LOW", 0)
    first = tmp_path / "logs" / "exec_1.0"
    os.close(ready.make(str(first)))
    first.write_bytes(b"secret")
    inode = first.stat().st_ino
    ready.recycle(str(first))
    assert not first.exists()
    fd = ready.make(str(tmp_path / "logs" / "exec_2.0"))
    assert (os.fstat(fd).st_ino, os.pread(fd, 99, 0)) == (inode, b"")
    os.close(fd)


def test_bounds(ready: blanks.Blanks, tmp_path: Path) -> None:
    """No more files are kept than are wanted, and one that is gone already is no matter."""
    (tmp_path / "logs").mkdir()
    for number in range(blanks.FULL + 5):
        path = tmp_path / "logs" / f"exec_{number}.0"
        path.write_bytes(b"x")
        ready.recycle(str(path))
    ready.recycle(str(tmp_path / "logs" / "gone.0"))
    assert len(list((tmp_path / "logs").iterdir())) == blanks.FULL


def test_blank_that_was_taken_away(ready: blanks.Blanks, tmp_path: Path) -> None:
    """A file that somebody removed is made anew."""
    os.close(ready.make(str(tmp_path / "logs" / "exec_1.0")))
    for path in (tmp_path / "logs").glob(f"{blanks.PREFIX}*"):
        path.unlink()
    fd = ready.make(str(tmp_path / "logs" / "exec_2.0"))
    assert (tmp_path / "logs" / "exec_2.0").stat().st_ino == os.fstat(fd).st_ino
    os.close(fd)


def test_disk_that_refuses(tmp_path: Path) -> None:
    """Whoever wants a file meets the error of the disk."""
    (tmp_path / "logs").write_bytes(b"not a directory")
    ready = blanks.Blanks(tmp_path / "logs", Now())
    with pytest.raises(OSError, match="Not a directory"):
        ready.make(str(tmp_path / "logs" / "exec_1.0"))
