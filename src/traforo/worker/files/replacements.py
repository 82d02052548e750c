"""Files that take another's place when they are whole: written beside it without a name, which they get at the end.

A file without a name is nobody's to swap for another, and is gone when the worker dies. A file system that has no such
files (an overlay up to Linux 6.1) gets one with a name of its own, and it too is placed and changed by descriptor.
Whoever reads the file meanwhile sees the old one or the new one and nothing between. Where that would change more than
the content (another name of the file would keep the old one, the owner could not be kept, the directory may not be
written) it is not done: the file itself is written then, as by any command. It decides nothing about content.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import secrets
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.files import conditions, descriptors
from traforo.worker.runtimes import contract

PREFIX = ".traforo-"
"""How the name of what is not whole yet begins, where it has to have one. It stays behind only if the worker dies."""
DEFAULT_MODE = 0o644
"""Permission bits of a new file."""
_PERMISSIONS = 0o777
_WRITABLE = 0o222


@dataclass(slots=True)
class Writing:
    """A file that is being written. End it with `commit` or `abandon`."""

    files: contract.Files
    path: str
    user: str
    fd: int
    in_place: bool = False
    """Whether the file itself is written."""
    temporary: str | None = None
    """What it is called until it is whole, where it has a name."""
    exclusive: bool = False
    mode: int | None = None
    """Permission bits that are still to be set."""

    async def commit(self) -> os.stat_result:
        """Put it in its place, and return its facts. Raises `PreconditionFailed` where another came first."""
        if self.mode is not None:
            await self.files.change(self.path, user=self.user, descriptor=self.fd, mode=self.mode)
        found = os.fstat(self.fd)
        if not self.in_place:
            await self._place()
        self._close()
        return found

    async def abandon(self) -> None:
        """Let go of what is not whole. Idempotent, without effect after `commit`, and goes on when it is cancelled."""
        if self.fd < 0:
            return
        self._close()
        if self.temporary is not None:
            await asyncio.shield(asyncio.ensure_future(self._forget(self.temporary)))

    async def _place(self) -> None:
        try:
            await self.files.place(self.fd, self.path, user=self.user, exclusive=self.exclusive)
        except errors.Conflict as error:
            if not self.exclusive:
                raise
            raise exists(self.path) from error
        if self.temporary is not None:
            await self._forget(self.temporary)

    async def _forget(self, temporary: str) -> None:
        with contextlib.suppress(errors.TraforoError):
            await self.files.remove(temporary, user=self.user, recursive=False)

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


async def begin(
    files: contract.Files,
    path: str,
    *,
    user: str,
    mode: int | None = None,
    wanted: conditions.Conditions = conditions.NONE,
    exclusive: bool = False,
) -> Writing:
    """Begin to write a file, making its parents. `exclusive` refuses one that exists.

    Raises what the runtime raises for a path, and `PreconditionFailed`.
    """
    exclusive = exclusive or wanted.exclusive
    facts = await _facts(files, path, user)
    if facts is None:
        if conditions.write(wanted, None) is conditions.Verdict.FAILED:
            raise failed(path)
        return await _new(files, path, user, mode, exclusive=exclusive)
    if exclusive:
        raise exists(path)
    found = await _examined(files, path, user, facts, wanted)
    replaceable = facts.kind is contract.FileKind.FILE and facts.mode & _WRITABLE and _beside(path)
    if replaceable and found is not None and found.st_nlink == 1:
        writing = await _beside_existing(files, path, user, facts, found, mode)
        if writing is not None:
            return writing
    return await _in_place(files, path, user, mode)


def exists(path: str) -> errors.PreconditionFailed:
    """Return the error for a file that was to be new."""
    return errors.PreconditionFailed(f"cannot make {path[:200]!r}: it exists already", field="path")


def failed(path: str) -> errors.PreconditionFailed:
    """Return the error for a file that is not the version that was named."""
    return errors.PreconditionFailed(
        f"cannot go on with {path[:200]!r}: it is not the version that the request names", field="path"
    )


def number(error: errors.TraforoError) -> int | None:
    """Return the errno behind an error of a runtime, where there is one."""
    found = getattr(error.__cause__, "errno", None)
    return found if isinstance(found, int) else None


def missing(error: errors.NotFound) -> bool:
    """Tell whether it is a file that was not found, and no user or sandbox."""
    return error.fields.get("kind") == "file"


async def _facts(files: contract.Files, path: str, user: str) -> contract.FileStat | None:
    try:
        return await files.stat(path, user=user, follow=False)
    except errors.NotFound as error:
        if not missing(error):
            raise
        return None


async def _examined(
    files: contract.Files, path: str, user: str, facts: contract.FileStat, wanted: conditions.Conditions
) -> os.stat_result | None:
    """Look at a file that exists, and at what was said of it. None where it cannot be looked at."""
    if facts.kind is not contract.FileKind.FILE and not wanted.any:
        return None
    try:
        fd = await files.open(path, os.O_RDONLY, user=user)
    except (errors.Forbidden, errors.NotFound):
        if wanted.any:
            raise
        return None
    try:
        descriptors.check(fd, path)
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if conditions.write(wanted, found) is conditions.Verdict.FAILED:
        raise failed(path)
    return found


async def _new(files: contract.Files, path: str, user: str, mode: int | None, *, exclusive: bool) -> Writing:
    bits = DEFAULT_MODE if mode is None else mode
    more = os.O_EXCL if exclusive else 0
    if _beside(path) is None:
        return await _in_place(files, path, user, mode, more)
    try:
        fd, temporary = await _begun(files, path, user, bits)
    except (errors.Forbidden, errors.NotFound):
        # Refused here as well, in words about the path that was asked for.
        return await _in_place(files, path, user, mode, more)
    later = bits if bits & ~_PERMISSIONS else None
    return Writing(files, path, user, fd, temporary=temporary, exclusive=exclusive, mode=later)


async def _beside_existing(
    files: contract.Files,
    path: str,
    user: str,
    facts: contract.FileStat,
    found: os.stat_result,
    mode: int | None,
) -> Writing | None:
    """Begin a file that will have the owner of the one it replaces; None where that cannot be."""
    bits = found.st_mode & _PERMISSIONS if mode is None else mode
    try:
        fd, temporary = await _begun(files, path, user, bits)
    except errors.Forbidden:
        return None
    writing = Writing(files, path, user, fd, temporary=temporary, mode=bits if bits & ~_PERMISSIONS else None)
    try:
        owned = await _owned(writing, facts, found)
    except BaseException:
        await writing.abandon()
        raise
    if not owned:
        await writing.abandon()
        return None
    return writing


async def _owned(writing: Writing, facts: contract.FileStat, wanted: os.stat_result) -> bool:
    """Give a new file the owner of the one that it replaces, where the user may."""
    found = os.fstat(writing.fd)
    if (found.st_uid, found.st_gid) == (wanted.st_uid, wanted.st_gid):
        return True
    try:
        await writing.files.change(writing.path, user=writing.user, descriptor=writing.fd, uid=facts.uid, gid=facts.gid)
    except (errors.Forbidden, errors.InvalidRequest):
        return False
    return True


async def _in_place(files: contract.Files, path: str, user: str, mode: int | None, more: int = 0) -> Writing:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | more
    try:
        fd = await files.open(path, flags, (mode or DEFAULT_MODE) & _PERMISSIONS, user=user)
    except errors.Conflict as error:
        if more and number(error) in {errno.EEXIST, None}:
            raise exists(path) from error
        raise
    writing = Writing(files, path, user, fd, in_place=True, mode=mode)
    try:
        descriptors.check(fd, path)
    except BaseException:
        await writing.abandon()
        raise
    return writing


async def _begun(files: contract.Files, path: str, user: str, mode: int) -> tuple[int, str | None]:
    """Open a new file in the directory of a path; return it and its name, if it has to have one."""
    temporary: str | None = None
    try:
        fd = await files.draft(path, mode & _PERMISSIONS, user=user)
    except errors.InvalidRequest as error:
        temporary = _beside(path)
        if number(error) != errno.EOPNOTSUPP or temporary is None:
            raise
        fd = await files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode & _PERMISSIONS, user=user)
    try:
        descriptors.check(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd, temporary


def _beside(path: str) -> str | None:
    """Return a new name in the directory of a path; None where there can be none."""
    directory, name = posixpath.split(path)
    if name in {"", ".", ".."}:
        return None
    temporary = posixpath.join(directory, PREFIX + secrets.token_hex(8))
    return temporary if len(os.fsencode(temporary)) <= contract.MAX_PATH_BYTES else None
