"""Descriptors from a sandbox: nothing but files on a disk is touched."""

import errno
import os
from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.worker.files import descriptors


@pytest.mark.parametrize("path", ["/proc/self/oom_score_adj", "/proc/meminfo", "/sys/kernel/notes"])
def test_files_of_the_kernel(path: str) -> None:
    """A file that is a call into the kernel is refused: the worker's rights are not the sandbox's."""
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(errors.InvalidRequest, match="kernel"):
            descriptors.check(fd, path)
    finally:
        os.close(fd)


def test_ordinary_files(tmp_path: Path) -> None:
    """A file on a disk is taken, and its size is told."""
    (tmp_path / "f").write_bytes(b"123")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert descriptors.check(fd, "/f") == 3
        assert descriptors.file_system(fd) not in descriptors.KERNEL_FILE_SYSTEMS
    finally:
        os.close(fd)


def test_everything_else(tmp_path: Path) -> None:
    """Directories, FIFOs and devices are refused."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with pytest.raises(errors.InvalidRequest, match="not a regular file"):
                descriptors.check(fd, str(path))
        finally:
            os.close(fd)


def test_file_system_of_nothing() -> None:
    """The kernel's refusal is raised, not swallowed."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        descriptors.file_system(-1)


@pytest.mark.parametrize("size", [0, 1, 1000, descriptors.BLOCK_BYTES * 3 + 1])
def test_all_of_it(tmp_path: Path, size: int) -> None:
    """Everything is written and read, however many calls it takes."""
    data = os.urandom(size)
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        descriptors.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        assert descriptors.read(fd, size + 1) == data
        os.lseek(fd, 0, os.SEEK_SET)
        assert descriptors.read(fd, size // 2) == data[: size // 2]
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "number, kind",
    [(errno.ENOSPC, errors.DiskFull), (errno.EDQUOT, errors.DiskFull), (errno.EIO, errors.InvalidRequest)],
)
def test_translation(number: int, kind: type[errors.TraforoError]) -> None:
    """What the kernel says of a file is said in our words."""
    with pytest.raises(kind), descriptors.translated("/f"):
        raise OSError(number, os.strerror(number))
