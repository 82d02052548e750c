"""Finds the files of a host's /etc that its image gets a copy of, and reads them. What they are is decided in
`skeletons`.

Of what the allow-list names only regular files that everybody may read are taken, in directories that everybody may
list, and links that stay within the image. No link of the host is followed on the way: each component is opened by
itself.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from traforo.worker.images import skeletons
from traforo.worker.images.trees import Metadata

_MAX_FILE = 4 * 1024 * 1024
"""Most bytes of one copied file; the largest that is needed, a table of certificates or types, is below 1 MiB."""
_MAX_ITEMS = 20_000
_MAX_DEPTH = 8
_LIST = 0o005
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Item:
    """One file, directory (`kind` says which) or link of /etc that is copied."""

    kind: str
    facts: tuple[int, ...] = ()
    """Changes when the file is written or replaced."""
    target: str = ""
    """Where a link points."""


def is_listable(mode: int) -> bool:
    """Tell whether everybody may list a directory and use what is in it; False for what is no directory."""
    return stat.S_ISDIR(mode) and mode & _LIST == _LIST


def find(root: Path) -> Iterator[tuple[str, Item]]:
    """Yield what the allow-list finds below the root of a host, links that may lead nowhere included."""
    try:
        etc = os.open(root / "etc", _DIRECTORY)
    except OSError:
        return
    found = 0
    try:
        for kept in skeletons.KEPT:
            for pattern in kept.paths:
                for path, item in _matching(etc, pattern):
                    found += 1
                    if found > _MAX_ITEMS:
                        return
                    yield path, item
    finally:
        os.close(etc)


def _matching(etc: int, pattern: str) -> Iterator[tuple[str, Item]]:
    """Yield what one pattern of the allow-list finds, with everything below it."""
    *parents, last = pattern.split("/")
    descriptor = os.dup(etc)
    try:
        for parent in parents:
            inner = os.open(parent, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        for name in _names(descriptor):
            if fnmatch.fnmatchcase(name, last):
                yield from _walk(descriptor, "/".join(["etc", *parents, name]), _MAX_DEPTH)
    except OSError:
        # Not there, not a directory, or going away at this moment: then it is not part of the image.
        return
    finally:
        os.close(descriptor)


def _walk(parent: int, path: str, depth: int) -> Iterator[tuple[str, Item]]:
    """Yield one directory entry, and what is below it, as far as everybody may read it."""
    name = posixpath.basename(path)
    if any(fnmatch.fnmatchcase(name.lower(), refused) for refused in skeletons.REFUSED_NAMES):
        return
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(facts.st_mode):
            yield path, Item("link", target=os.readlink(name, dir_fd=parent))
        elif stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o004 and facts.st_size <= _MAX_FILE:
            yield path, Item("file", (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_mode))
        elif is_listable(facts.st_mode) and depth:
            yield path, Item("directory")
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                for child in _names(descriptor):
                    yield from _walk(descriptor, f"{path}/{child}", depth - 1)
            finally:
                os.close(descriptor)
    except OSError:
        return


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries)


def without_strays(items: dict[str, Item], shown: Collection[str]) -> Mapping[str, Item]:
    """Leave out links that lead out of the image, which holds `items` and the top-level names `shown`."""
    kept = dict(items)
    # A link may point at a link that goes away, so once more until nothing changes.
    for _ in range(_MAX_DEPTH):
        strays = [
            path
            for path, item in kept.items()
            if item.kind == "link"
            and (target := posixpath.normpath(posixpath.join("/", posixpath.dirname(path), item.target))[1:])
            not in kept
            and target.split("/")[0] not in shown
        ]
        if not strays:
            break
        for path in strays:
            del kept[path]
    return kept


def copy(root: Path, path: str) -> tuple[bytes, Metadata] | None:
    """Return content and metadata of a file of the host; None if it is not what it was when it was found, or a key."""
    opened = [os.open(root, _DIRECTORY)]
    try:
        *parents, name = path.split("/")
        for parent in parents:
            opened.append(os.open(parent, _DIRECTORY, dir_fd=opened[-1]))
        opened.append(os.open(name, _FILE, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        content = _read(opened[-1], _MAX_FILE)
    except OSError:
        return None
    finally:
        for descriptor in opened:
            os.close(descriptor)
    readable = stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o004
    if not readable or content is None or skeletons.REFUSED_CONTENT in content:
        return None
    return content, Metadata(0o644 | facts.st_mode & 0o111, mtime_ns=facts.st_mtime_ns)


def _read(descriptor: int, limit: int) -> bytes | None:
    """Return a whole file; None if it is larger than `limit`."""
    parts = []
    size = 0
    while data := os.read(descriptor, limit + 1):
        parts.append(data)
        size += len(data)
        if size > limit:
            return None
    return b"".join(parts)
