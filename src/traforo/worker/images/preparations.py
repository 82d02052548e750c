"""Prepared images on disk: made in a directory of their own, written through to the disk, then renamed into place.

    <state>/images/                  0700: set-id files of images are nothing to other users of the host
        <key>/rootfs/                what a runtime mounts
        <key>/image.json             what it is
        .making-<random>/            half-made; locked by whoever makes it, removed by the next start if nobody does

An image is there completely or not at all, whenever the machine stops.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from traforo.domain import errors
from traforo.worker.runtimes.contract import Lower, Rootfs

_MAKING = ".making-"
_RECORD = "image.json"
_ROOTFS = "rootfs"


class Record(msgspec.Struct, frozen=True):
    """What is kept about a prepared image."""

    reference: str
    """The reference for which it was made first."""
    kind: str
    bytes: int
    """Bytes of the files that were written."""
    entries: int
    env: dict[str, str]
    user: str
    cwd: str | None = None
    lowers: list[tuple[str, str]] = []
    """Source and target of what is mounted over the root; a source that is not absolute lies beside it."""
    skipped: list[str] = []
    """Files of the host that could not be copied."""


class Shelf:
    """The directory that holds prepared images. Its methods block; several threads and processes may use one."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which `open` makes."""
        self.directory = directory

    def open(self) -> None:
        """Make the directory, or check that nobody else can reach into it, and remove what was left half-made.

        Raises `StartFailed` if it belongs to somebody else.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = os.lstat(self.directory)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            raise errors.StartFailed(
                f"cannot keep images in '{self.directory}': it does not belong to the worker's user", stage="images"
            )
        self.directory.chmod(0o700)
        for path in self.directory.iterdir():
            if path.name.startswith(_MAKING):
                _remove_unlocked(path)

    def find(self, key: str) -> Record | None:
        """Return the record of a prepared image; None if it is not there."""
        try:
            data = (self.directory / key / _RECORD).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return msgspec.json.decode(data, type=Record)
        except msgspec.DecodeError as error:
            raise errors.Internal(f"cannot read '{self.directory / key / _RECORD}'") from error

    def all(self) -> Iterator[tuple[str, Record]]:
        """Yield key and record of every prepared image."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.directory.iterdir()):
                record = None if path.name.startswith(".") else self.find(path.name)
                if record is not None:
                    yield path.name, record

    def make(self, key: str, build: Callable[[Path], Record]) -> Record:
        """Prepare an image: `build` fills `<directory it is given>/rootfs` and says what it made.

        If another process was quicker, its image counts. Whatever is raised, nothing half-made stays.
        """
        with self.scratch() as scratch:
            (scratch / _ROOTFS).mkdir(0o755)
            record = build(scratch)
            (scratch / _RECORD).write_bytes(msgspec.json.encode(record))
            _write_through(scratch)
            try:
                scratch.rename(self.directory / key)
            except OSError:
                there = self.find(key)
                if there is None:
                    raise
                return there
            _sync(self.directory)
            return record

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a directory of one's own that is gone afterwards, unless it was renamed."""
        path = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self.directory))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
            os.close(lock)

    def remove(self, key: str) -> None:
        """Remove a prepared image, which no sandbox may use; at no moment is half of it there under its name."""
        with self.scratch() as scratch, contextlib.suppress(FileNotFoundError):
            (self.directory / key).rename(scratch / _ROOTFS)

    def rootfs(self, key: str, record: Record, reference: str) -> Rootfs:
        """Return what a runtime mounts for a prepared image."""
        home = self.directory / key
        over = (Lower(source=str(home / source), target=target) for source, target in record.lowers)
        return Rootfs(
            image=reference,
            lowers=(Lower(source=str(home / _ROOTFS), target="/"), *over),
            env=record.env,
            user=record.user,
            cwd=record.cwd,
        )


def _remove_unlocked(path: Path) -> None:
    """Remove a half-made image unless a living process holds its lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(path)
    finally:
        os.close(descriptor)


def _write_through(path: Path) -> None:
    """Return when everything on the file system of `path` is on the disk: one call instead of one for each file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
