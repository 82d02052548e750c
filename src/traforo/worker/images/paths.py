"""Which files of the host a reference may reach: those below the allowed roots, wherever their links lead.

A path is resolved first and judged then; and what was opened is judged again by its descriptor, so that a link put in
between changes nothing. The roots belong to the operator: who can write in them decides what images are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors

_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Roots:
    """Directories from which images may be taken; None allows every path, an empty tuple none."""

    directories: tuple[str, ...] | None

    @classmethod
    def of(cls, directories: Sequence[str | os.PathLike[str]] | None) -> Roots:
        """Make roots from what the settings say."""
        return cls(None if directories is None else tuple(os.fspath(directory) for directory in directories))

    def check(self, resolved: str, asked: str) -> None:
        """Raise `NotFound` unless a resolved path lies in a root: what is outside must look as if it were not there."""
        if self.directories is None:
            return
        # Resolved anew each time: a root may be a link that the operator moves.
        roots = (Path(os.path.realpath(root)) for root in self.directories)
        if not any(Path(resolved).is_relative_to(root) for root in roots):
            raise _missing(asked, hint="images may only be taken from the directories in image-roots")


def resolve(path: str, roots: Roots) -> str:
    """Return the path without links. Raises `NotFound` for what is not there or outside of the roots."""
    # Outside or missing must read the same, so the roots are asked first, about as much of the path as exists.
    roots.check(os.path.realpath(path), path)
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise _missing(path) from error


def open_file(path: str, roots: Roots) -> int:
    """Open a regular file below the roots and return a descriptor that the caller closes.

    Raises `NotFound` for what is not there or outside, `InvalidRequest` for what is not a regular file.
    """
    descriptor = _open(path, _FILE, roots)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise errors.InvalidRequest(f"cannot use '{path}' as an image: it is not a regular file", field="image")
    return descriptor


def check_directory(path: str, roots: Roots) -> tuple[str, os.stat_result]:
    """Return the resolved path of a directory below the roots, and facts about it.

    Raises `NotFound` for what is not there or outside, `InvalidRequest` for what is not a directory.
    """
    resolved = resolve(path, roots)
    if not Path(resolved).is_dir():
        raise errors.InvalidRequest(f"cannot use '{path}' as an image: it is not a directory", field="image")
    descriptor = _open(resolved, _DIRECTORY, roots)
    try:
        return resolved, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def identity(facts: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced."""
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _open(path: str, flags: int, roots: Roots) -> int:
    resolved = resolve(path, roots)
    try:
        descriptor = os.open(resolved, flags)
    except PermissionError as error:
        raise errors.InvalidRequest(f"cannot use '{path}' as an image: it cannot be read", field="image") from error
    except OSError as error:
        raise _missing(path) from error
    try:
        roots.check(os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink()), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _missing(path: str, hint: str | None = None) -> errors.NotFound:
    return errors.NotFound(f"cannot find image file '{path}'", kind="image", id=path, hint=hint)
