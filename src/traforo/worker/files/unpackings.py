"""Extracts an archive below a directory of a sandbox, with the rights of one of its users, as it comes in.

Nothing is made outside of that directory: neither a name nor a link of the archive may lead out, and what it calls a
directory has to be one. An archive that is refused half way leaves what came before. How much it may hold is limited by
the sandbox's own disk, and by a number of entries.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.files import descriptors, fillings, inflows, replacements, tarballs, trees
from traforo.worker.runtimes import contract

_OWNER_MAY_ENTER = 0o700
_SPECIAL_BITS = 0o7000


@dataclass(slots=True)
class Unpacked:
    """What was extracted."""

    entries: int = 0
    bytes: int = 0
    """Of content."""


class Unpacking:
    """One extraction."""

    def __init__(
        self,
        inside: contract.Files,
        base: str,
        *,
        user: str,
        max_bytes: int | None,
        limit: int,
        keep_links: bool = False,
    ) -> None:
        """Extract below `base`: at most `limit` entries and directories, and `max_bytes` of content.

        With `keep_links` symbolic links are made wherever they lead; nothing is written through them.
        """
        self._keep_links = keep_links
        self._files = inside
        self._base = base
        self._user = user
        self._tree = trees.Tree(inside, user)
        self._max_bytes = max_bytes
        self._limit = limit
        self._owners = True
        """Whether the user may give files away; found out by trying."""
        self._directories = {""}
        """Those that are known to be no links."""
        self._late: dict[str, tarballs.Member] = {}
        """Directories of the archive: their bits and times are set when nothing more is put into them."""
        self._done = Unpacked()

    async def run(self, inflow: inflows.Inflow) -> Unpacked:
        """Extract everything.

        Raises `InvalidRequest` (`entry` says where), `TooLarge`, `DiskFull`, and what the runtime raises for a path.
        """
        await self._files.mkdir(self._base, user=self._user, parents=True)
        reader = inflows.Reader(inflow, limit=self._limit)
        while (member := await reader.next()) is not None:
            name = tarballs.safe(member.name)
            if name:
                await self._take(name, member, reader)
            elif member.kind is not tarballs.Kind.DIRECTORY:
                raise tarballs.refused(member.name, "it has no name")
            self._done.entries += 1
        for name, member in reversed(self._late.items()):
            await self._adorn(name, member, mode=member.mode)
        return self._done

    async def _take(self, name: str, member: tarballs.Member, reader: inflows.Reader) -> None:
        parent = posixpath.dirname(name)
        await self._enter(parent)
        path = tarballs.place(self._base, name)
        if member.kind is tarballs.Kind.DIRECTORY:
            await self._enter(name)
            self._late.pop(name, None)
            self._late[name] = member
            return
        if name in self._directories:
            raise tarballs.refused(name, "a directory stands in its place")
        if member.kind is tarballs.Kind.FILE:
            await self._file(name, path, member, reader)
        elif member.kind is tarballs.Kind.SYMLINK:
            tarballs.check_link(name, member.link, inside=not self._keep_links)
            await self._tree.place_link(member.link, path, overwrite=True)
            await self._adorn(name, member, mode=None)
        else:
            await self._hardlink(name, path, member)

    async def _enter(self, name: str) -> None:
        """Make a directory and those above it, and make sure that each is one. Raises `InvalidRequest`."""
        if name in self._directories:
            return
        await self._enter(posixpath.dirname(name))
        path = tarballs.place(self._base, name)
        try:
            made = await self._files.mkdir(path, 0o755, user=self._user, parents=False)
        except (errors.Conflict, errors.InvalidRequest) as error:
            raise tarballs.refused(name, "something else stands in the place of its directory") from error
        if not made:
            facts = await self._files.stat(path, user=self._user, follow=False)
            if facts.kind is not contract.FileKind.DIRECTORY:
                raise tarballs.refused(name, "a link stands in the place of its directory")
        if len(self._directories) > self._limit:
            raise errors.TooLarge(f"cannot extract: more than {self._limit} directories", limit=self._limit)
        self._directories.add(name)

    async def _file(self, name: str, path: str, member: tarballs.Member, reader: inflows.Reader) -> None:
        left = None if self._max_bytes is None else self._max_bytes - self._done.bytes
        if left is not None and member.size > left:
            raise errors.DiskFull("cannot extract: the archive is larger than the sandbox's disk")
        fd = await self._made(path, member.mode & 0o777)
        try:
            descriptors.check(fd, path)
            await self._fill(fd, path, reader)
            await self._adorn(name, member, mode=member.mode if member.mode & _SPECIAL_BITS else None, fd=fd)
        finally:
            os.close(fd)

    async def _fill(self, fd: int, path: str, reader: inflows.Reader) -> None:
        filling = fillings.Filling(self._files, fd, path, self._user)
        try:
            while data := await reader.read(descriptors.BLOCK_BYTES):
                self._done.bytes += len(data)
                await filling.write(data)
            await filling.finish()
        finally:
            await filling.abandon()

    async def _made(self, path: str, mode: int) -> int:
        """Open a file that was not there; one that was, or a link, is removed and never written through."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return await self._files.open(path, flags, mode, user=self._user)
        except errors.Conflict:
            await self._files.remove(path, user=self._user, recursive=False)
        return await self._files.open(path, flags, mode, user=self._user)

    async def _hardlink(self, name: str, path: str, member: tarballs.Member) -> None:
        target = tarballs.safe(member.link)
        await self._enter(posixpath.dirname(target))
        source = tarballs.place(self._base, target)
        facts = await self._files.stat(source, user=self._user, follow=False)
        if facts.kind is not contract.FileKind.FILE:
            raise tarballs.refused(name, "it is another name for something that is no file")
        if target == name:
            return
        try:
            await self._files.link(source, path, user=self._user)
        except errors.Conflict:
            await self._files.remove(path, user=self._user, recursive=False)
            await self._files.link(source, path, user=self._user)

    async def _adorn(self, name: str, member: tarballs.Member, *, mode: int | None, fd: int | None = None) -> None:
        """Set owner, bits and time. Where the user may not give files away, they stay the user's.

        A file is changed while it is open. What else stands in its place by now is changed itself, if no link leads
        there: another user of the sandbox may write here too.
        """
        for owners in (True, False) if self._owners else (False,):
            try:
                await self._files.change(
                    self._base,
                    user=self._user,
                    below=name,
                    descriptor=fd,
                    mode=mode,
                    uid=member.uid if owners else None,
                    gid=member.gid if owners else None,
                    modified_at=member.modified_at,
                )
            except (errors.Forbidden, errors.InvalidRequest):
                if not owners:
                    raise
                self._owners = False
            except errors.NotFound as error:
                if not replacements.missing(error):
                    raise
                return  # somebody removed it meanwhile
            else:
                return
