"""Where the parts of an image are: in the blobs of an OCI layout directory, or in the members of an archive.

Both forms answer the same two questions, `document` and `layer`, so that what follows does not know which it reads.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from traforo.domain import errors
from traforo.worker.images import manifests, paths, readers, tars
from traforo.worker.images.budgets import Budget
from traforo.worker.images.readers import Region
from traforo.worker.images.tars import Kind

_MAX_LINKS = 16
"""Most links from one member of an archive to the next; old `docker save` needs one."""


class Parts(Protocol):
    """Parts of an image by name, relative to the layout or the archive."""

    def document(self, name: str, limit: int) -> bytes:
        """Return a small part whole. Raises `InvalidRequest` if there is none, `TooLarge` past `limit` bytes."""
        ...

    def part(self, name: str) -> contextlib.AbstractContextManager[Region]:
        """Open a part of any size. Raises `InvalidRequest` if there is none."""
        ...


def _no_part(name: str) -> errors.InvalidRequest:
    return manifests.invalid(f"it has no '{tars.shown(name.encode())}'")


class Directory:
    """An OCI layout in a directory. Its files may be links, as build tools make them, if they stay in the roots."""

    def __init__(self, path: str, roots: paths.Roots) -> None:
        """Read below `path`, which is a directory."""
        self._path = path
        self._roots = roots

    def document(self, name: str, limit: int) -> bytes:
        """Return a small part whole."""
        with self.part(name) as region:
            return readers.whole(region, limit)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Region]:
        """Open a part of any size."""
        try:
            descriptor = paths.open_file(f"{self._path}/{name}", self._roots)
        except errors.NotFound as error:
            raise _no_part(name) from error
        try:
            yield Region(descriptor, 0, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)


class Archive:
    """Members of one tar file that is held open."""

    def __init__(self, descriptor: int, budget: Budget) -> None:
        """Read where each member begins; contents are passed over.

        Raises `InvalidRequest` for what is not a tar file, `TooLarge` for more members than the limits allow.
        """
        self._descriptor = descriptor
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        region = Region(descriptor, 0, os.fstat(descriptor).st_size)
        for count, entry in enumerate(tars.TarReader(region, skip=region.skip)):
            if count >= budget.limits.members:
                limit = budget.limits.members
                raise errors.TooLarge(f"cannot read the image: its archive has more than {limit} members", limit=limit)
            budget.spend(0)
            name = posixpath.normpath(os.fsdecode(entry.name))
            if entry.kind is Kind.FILE:
                self._members[name] = (entry.offset, entry.size)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link)))
            elif entry.kind is Kind.HARDLINK:
                self._links[name] = posixpath.normpath(os.fsdecode(entry.link))

    def document(self, name: str, limit: int) -> bytes:
        """Return a small part whole."""
        with self.part(name) as region:
            return readers.whole(region, limit)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Region]:
        """Open a part of any size."""
        target = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            if target in self._members:
                yield Region(self._descriptor, *self._members[target])
                return
            if target not in self._links:
                break
            target = self._links[target]
        raise _no_part(name)


@contextlib.contextmanager
def archive(path: str, roots: paths.Roots, budget: Budget, scratch: Path) -> Iterator[Archive]:
    """Open an archive file. One that is packed is unpacked into an unnamed file in the directory `scratch` first."""
    descriptor = paths.open_file(path, roots)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if readers.is_gzip(descriptor):
            packed = Region(descriptor, 0, os.fstat(descriptor).st_size)
            plain = stack.enter_context(tempfile.TemporaryFile(dir=scratch, buffering=0))
            stream = readers.unpacked(packed, budget.renewed())
            while data := stream.read(readers.CHUNK):
                view = memoryview(data)
                while view:
                    view = view[plain.write(view) :]
            descriptor = plain.fileno()
        yield Archive(descriptor, budget)
