"""Moves, copies and changes of files and whole trees inside a sandbox, each with the rights of one of its users.

Content is copied by the worker through descriptors, block by block and within the kernel where it can; everything else
is asked of the sandbox's init. A tree that changes meanwhile is copied as it is met: what has gone is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from traforo.api import threads
from traforo.domain import errors
from traforo.worker.files import descriptors, files, replacements, walks
from traforo.worker.runtimes import contract

_OWNER_MAY_ENTER = 0o700
_SWAPPED = {errno.ELOOP, errno.ENOTDIR, errno.EOPNOTSUPP}
"""What is said of a path on which something else stands by now than what was found there."""


@dataclass(slots=True)
class Copied:
    """What a copy made."""

    entries: int = 0
    """Files, links and directories."""
    bytes: int = 0
    """Of content."""
    skipped: int = 0
    """Devices, FIFOs and sockets, which are not copied; and what has gone meanwhile."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be changed; None stays as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    modified_at: float | None = None


@dataclass(slots=True)
class _Copying:
    """One copy that is being made."""

    to: str
    """Where the copy is made."""
    overwrite: bool
    keep: bool = False
    """Owners, times and all mode bits as they were, where the user may set them: for a move."""
    done: Copied = field(default_factory=Copied)
    late: list[tuple[str, contract.FileStat]] = field(default_factory=list)
    """Directories whose bits and times are set when nothing more is put into them."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of one sandbox, for one of its users."""

    files: contract.Files
    user: str
    turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Holds a turn while a tree is walked (`walks.Turns`)."""

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        """Rename; between file systems, copy and remove. Without `overwrite` nothing may be at `to`.

        Raises what the runtime raises for a path.
        """
        _check(path, to, "move")
        if not overwrite:
            await self._check_free(to, name=_name(path))
        try:
            await self._rename(path, to, overwrite=overwrite, name=_name(path))
        except errors.InvalidRequest as error:
            if replacements.number(error) != errno.EXDEV:
                raise
            await self._move_between(path, to, overwrite=overwrite)

    async def copy(self, path: str, to: str, *, recursive: bool, overwrite: bool) -> Copied:
        """Copy a file, or with `recursive` a directory and all that is in it. A link at `path` is followed.

        With `overwrite` files are replaced, and directories are put together. Permission bits are kept; the copies
        belong to the user. Raises what the runtime raises for a path, `TooLarge`.
        """
        _check(path, to, "copy")
        facts = await self.files.stat(path, user=self.user)
        copying = _Copying(to, overwrite)
        if facts.kind is contract.FileKind.FILE:
            if not overwrite:
                await self._check_free(to, name=_name(path))
            await self._copy_file(facts, to, copying)
        elif facts.kind is not contract.FileKind.DIRECTORY:
            raise errors.InvalidRequest(f"cannot copy {path[:200]!r}: neither a file nor a directory", field="from")
        elif not recursive:
            raise errors.InvalidRequest(
                f"cannot copy {path[:200]!r}: it is a directory", field="recursive", hint="ask with 'recursive': true"
            )
        else:
            if not overwrite:
                await self._check_free(to)
            await self._copy_tree(facts, to, copying)
        return copying.done

    async def change(self, path: str, wanted: Change, *, recursive: bool) -> int:
        """Change a file or directory, with `recursive` all that is below it too; return how many.

        The path itself is followed if it is a link; links below it are not, and keep their permission bits.
        """
        if recursive:
            facts = await self.files.stat(path, user=self.user)
            if facts.kind is contract.FileKind.DIRECTORY:
                with self.turn():
                    return await self._change_tree(path, wanted)
        await self._apply(path, wanted, follow=True)
        return 1

    # ----------------------------------------------------------------------------------------------- the parts

    async def _change_tree(self, path: str, wanted: Change) -> int:
        found = await walks.walk(self.files, path, user=self.user)
        changed = 1
        for facts in reversed(found):  # what is in a directory before its own bits may shut it
            try:
                await self._change_below(path, facts, wanted)
                changed += 1
            except errors.NotFound:
                continue
            except errors.InvalidRequest as error:
                if replacements.number(error) not in _SWAPPED:
                    raise
        await self._apply(path, wanted, follow=True)
        return changed

    async def _change_below(self, base: str, facts: contract.FileStat, wanted: Change) -> None:
        """Change what was found below a directory. Somebody else may write there: no link on the way is followed."""
        if facts.kind is contract.FileKind.SYMLINK:
            wanted = Change(None, wanted.uid, wanted.gid, wanted.modified_at)
        await self._apply(base, wanted, follow=True, below=walks.relative(base, facts.path))

    async def _apply(
        self, path: str, wanted: Change, *, follow: bool, below: str | None = None, descriptor: int | None = None
    ) -> None:
        await self.files.change(
            path,
            user=self.user,
            follow=follow,
            below=below,
            descriptor=descriptor,
            mode=wanted.mode,
            uid=wanted.uid,
            gid=wanted.gid,
            modified_at=wanted.modified_at,
        )

    async def _check_free(self, to: str, *, name: str | None = None) -> None:
        """Raise `Conflict` when something is at `to`. What cannot replace a directory has a `name` to take in it."""
        try:
            found = await self.files.stat(to, user=self.user, follow=False)
        except errors.NotFound as error:
            if not replacements.missing(error):
                raise
            return
        if name is not None and found.kind is contract.FileKind.DIRECTORY:
            raise _taken_by_directory(to, name)
        raise _taken(to)

    async def _rename(self, path: str, to: str, *, overwrite: bool, name: str) -> None:
        try:
            await self.files.rename(path, to, user=self.user, exclusive=not overwrite)
        except (errors.Conflict, errors.InvalidRequest) as error:
            if replacements.number(error) in {errno.EISDIR, errno.ENOTEMPTY}:
                raise _taken_by_directory(to, name) from error
            if overwrite or not isinstance(error, errors.Conflict):
                raise
            raise _taken(to) from error

    async def _move_between(self, path: str, to: str, *, overwrite: bool) -> None:
        """Move to another file system: the copy takes its place when it is whole, then the old one goes."""
        facts = await self.files.stat(path, user=self.user, follow=False)
        directory = posixpath.dirname(to.rstrip("/"))
        temporary = posixpath.join(directory, replacements.PREFIX + secrets.token_hex(8))
        copying = _Copying(temporary, overwrite=False, keep=True)
        try:
            if facts.kind is contract.FileKind.DIRECTORY:
                await self._copy_tree(facts, temporary, copying)
            else:
                await self._copy_entry(facts, temporary, copying)
            _check_whole(copying.done, path)
            await self._rename(temporary, to, overwrite=overwrite, name=_name(path))
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._forget(temporary)))
            raise
        await self.files.remove(path, user=self.user, recursive=True)

    async def _forget(self, path: str) -> None:
        with contextlib.suppress(errors.TraforoError):
            await self.files.remove(path, user=self.user, recursive=True)

    async def _copy_tree(self, top: contract.FileStat, to: str, copying: _Copying) -> None:
        """Copy a directory. What is in it is known before the first copy is made, so a copy into itself ends.

        Each copy is made by its whole path: directories that were there may be links, and are written through. So in a
        tree that another user of the sandbox may write, that one can have copies made elsewhere, as with `cp -r`.
        """
        with self.turn():
            await self._copy_walked(top, to, copying)

    async def _copy_walked(self, top: contract.FileStat, to: str, copying: _Copying) -> None:
        found = await walks.walk(self.files, top.path, user=self.user)
        await self._copy_directory(top, to, copying)
        for facts in found:
            place = posixpath.join(to, walks.relative(top.path, facts.path))
            try:
                if facts.kind is contract.FileKind.DIRECTORY:
                    await self._copy_directory(facts, place, copying)
                else:
                    await self._copy_entry(facts, place, copying)
            except errors.NotFound as error:
                if not replacements.missing(error):
                    raise
                copying.done.skipped += 1
        for place, facts in reversed(copying.late):
            if copying.keep:
                await self._keep(facts, place, copying)
            else:
                await self._apply_to_copy(place, Change(mode=facts.mode), copying)

    async def _copy_directory(self, facts: contract.FileStat, to: str, copying: _Copying) -> None:
        first = not copying.done.entries
        made = await self.files.mkdir(to, facts.mode | _OWNER_MAY_ENTER, user=self.user, parents=first)
        unusual = facts.mode & ~0o777 or facts.mode & _OWNER_MAY_ENTER != _OWNER_MAY_ENTER
        if made and (unusual or copying.keep):
            copying.late.append((to, facts))
        copying.done.entries += 1

    async def _copy_entry(self, facts: contract.FileStat, to: str, copying: _Copying) -> None:
        if facts.kind is contract.FileKind.FILE:
            await self._copy_file(facts, to, copying)
        elif facts.kind is contract.FileKind.SYMLINK and facts.target:
            await self.place_link(facts.target, to, overwrite=copying.overwrite)
            copying.done.entries += 1
            if copying.keep:
                await self._keep(facts, to, copying)
        else:
            copying.done.skipped += 1

    async def _keep(self, facts: contract.FileStat, to: str, copying: _Copying, descriptor: int | None = None) -> None:
        """Give a copy what its original has, as far as the user may: owner, bits and time, or bits and time.

        A file is changed while it is open. A directory or a link has no descriptor here: it is what stands in its
        place, reached from where the copy began and through no link.
        """
        mode = None if facts.kind is contract.FileKind.SYMLINK else facts.mode
        for wanted in (
            Change(mode, facts.uid, facts.gid, facts.modified_at),
            Change(mode, None, None, facts.modified_at),
        ):
            with contextlib.suppress(errors.Forbidden, errors.InvalidRequest):
                await self._apply_to_copy(to, wanted, copying, descriptor)
                return

    async def _apply_to_copy(self, to: str, wanted: Change, copying: _Copying, descriptor: int | None = None) -> None:
        below = walks.relative(copying.to, to) or None
        # Where something was there before, it may have been a link to a directory.
        follow = below is not None and copying.overwrite
        await self._apply(copying.to, wanted, follow=follow, below=below, descriptor=descriptor)

    async def place_link(self, target: str, path: str, *, overwrite: bool) -> None:
        """Make a symbolic link, with `overwrite` in the place of a file or link. Raises `Conflict`."""
        try:
            await self.files.symlink(target, path, user=self.user)
        except errors.Conflict:
            if not overwrite:
                raise
            await self.files.remove(path, user=self.user, recursive=False)
            await self.files.symlink(target, path, user=self.user)

    async def _copy_file(self, facts: contract.FileStat, to: str, copying: _Copying) -> None:
        source = await files.opened(self.files, facts.path, self.user)
        try:
            writing = await replacements.begin(
                self.files, to, user=self.user, mode=source.found.st_mode & 0o777, exclusive=not copying.overwrite
            )
            try:
                copying.done.bytes += await copy_content(self.files, source, writing.fd, facts.path, self.user)
                if copying.keep:
                    await self._keep(facts, to, copying, writing.fd)
                await writing.commit()
            finally:
                await writing.abandon()
        except errors.PreconditionFailed as error:
            raise errors.Conflict(f"cannot use {to[:200]!r}: it exists already") from error
        finally:
            source.close()
        copying.done.entries += 1


async def copy_content(inside: contract.Files, source: files.OpenFile, to: int, path: str, user: str) -> int:
    """Copy a file's content, as far as it went when it was opened if it is small; return how many bytes.

    Raises `DiskFull`.
    """
    left = source.size
    if not inside.direct(left):
        await inside.fill(to, source.fileno(), path, user=user)
        return os.fstat(to).st_size
    with descriptors.translated(path):
        while left > 0:
            amount = min(left, descriptors.COPY_BYTES)
            if amount <= descriptors.INLINE_BYTES:
                copied = descriptors.copy(source.fileno(), to, amount)
            else:
                copied = await threads.run(descriptors.copy, source.fileno(), to, amount)
            if not copied:
                break
            left -= copied
    return source.size - left


def _taken(to: str) -> errors.Conflict:
    return errors.Conflict(
        f"cannot use {to[:200]!r}: it exists already", hint="ask with 'overwrite': true to replace it"
    )


def _name(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def _taken_by_directory(to: str, name: str) -> errors.Conflict:
    return errors.Conflict(
        f"cannot use {to[:200]!r}: it is a directory", hint=f"name the place in it: {posixpath.join(to, name)[:400]!r}"
    )


def _check_whole(done: Copied, path: str) -> None:
    if done.skipped:
        raise errors.InvalidRequest(
            f"cannot move {path[:200]!r} to another file system: there is more in it than files", field="from"
        )


def _check(path: str, to: str, verb: str) -> None:
    """Refuse what can never work, before anything is done."""
    for name in (path, to):
        if posixpath.normpath(name).strip("/") == "":
            raise errors.InvalidRequest(f"cannot {verb} '/'", field="from" if name is path else "to")
    source, target = posixpath.normpath(path), posixpath.normpath(to)
    if target == source:
        raise errors.InvalidRequest(f"cannot {verb} {path[:200]!r} to itself", field="to")
    if target.startswith(source + "/"):
        raise errors.InvalidRequest(f"cannot {verb} {path[:200]!r} into itself", field="to")
