"""The `host` image: a made root directory with the host's own /usr mounted into it. Needs no download and no archive.

Nothing of /home, /root, /var, /run, /opt or /srv is in it, and of /etc only the allow-list of `skeletons`. /usr itself
is shown whole: root in a sandbox may read there what root of the host may. Directories in it where sites keep settings
of their own are therefore hidden if they hold anything that not everybody may read; see `MASKABLE`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors
from traforo.worker.images import skeletons, surveys, trees, unpackers
from traforo.worker.images.trees import Metadata
from traforo.worker.runtimes.contract import Lower

MASKABLE = ("usr/etc", "usr/local/etc", "usr/local/src", "usr/src")
"""Directories of /usr that no distribution fills with what programs need, and where sites put settings and sources."""
MASK = "mask"
"""Name of the empty directory, beside the root, that hides them."""

ENV: Mapping[str, str] = skeletons.ENV
"""Environment of the image."""

_MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of all copied files."""
_MAX_ITEMS = 20_000
_MAX_SKIPPED = 100


@dataclass(frozen=True, slots=True)
class Host:
    """What was found on a host, and therefore what its image will be."""

    root: Path
    """Root directory of the host; another one in tests."""
    shell: str
    links: Mapping[str, str]
    """Top-level links into /usr."""
    directories: tuple[str, ...]
    """Top-level directories that are shown as they are, /usr first."""
    masks: tuple[str, ...]
    items: Mapping[str, surveys.Item]
    """What is copied, by path below the root."""

    def fingerprint(self, *, privileged: bool) -> str:
        """Return hex digits that change when the image has to be made anew."""
        found = (str(self.root), self.shell, self.links, self.directories, self.masks, self.items)
        facts = (skeletons.VERSION, privileged, *found)
        return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:32]

    def lowers(self) -> tuple[Lower, ...]:
        """Return what is mounted over the made root; a source that is not absolute lies beside that root."""
        shown = [Lower(source=str(self.root / name), target=f"/{name}") for name in self.directories]
        return (*shown, *(Lower(source=MASK, target=f"/{name}") for name in self.masks))


def find(root: Path) -> Host:
    """Look at a host. Raises `NotFound` if its /usr cannot serve as an image."""
    _check_readable(root / "usr")
    links, directories = _top_level(root)
    shells = [name for name in ("/bin/bash", "/bin/sh") if _executable(root / name[1:])]
    if not shells:
        raise _unusable("it has no shell that everybody may execute")
    return Host(
        root=root,
        shell=shells[0],
        links=links,
        directories=directories,
        masks=tuple(name for name in MASKABLE if _is_private(root / name)),
        items=surveys.without_strays(dict(surveys.find(root)), {*links, *directories}),
    )


def default_user(*, privileged: bool) -> str:
    """Return the default user. Without privileges nothing can belong to anybody but root of the sandbox."""
    return skeletons.USER if privileged else "root"


def build(host: Host, directory: Path, *, privileged: bool) -> tuple[int, int, tuple[str, ...]]:
    """Make the root below the directory `directory`/rootfs, which is empty, and the mask beside it.

    Returns bytes, entries, and the paths of files that were left out after all. Raises OSError.
    """
    (directory / MASK).mkdir()
    (directory / MASK).chmod(0o755)
    now = time.time_ns()
    directories = {name: Metadata(mode, mtime_ns=now) for name, mode in skeletons.DIRECTORIES.items()}
    directories |= {name: Metadata(0o755, mtime_ns=now) for name in host.directories}
    directories["home/user"] = Metadata(0o755, skeletons.USER_ID, skeletons.USER_ID, now)
    links = {**skeletons.LINKS, **host.links}
    contents: dict[str, tuple[bytes, Metadata]] = {}
    for path, text in skeletons.texts(host.shell).items():
        contents[path] = (text.content.encode(), Metadata(text.mode, 0, text.gid, now))
    skipped = _take(host, directories, links, contents, now)
    _furnish_homes(contents)
    for path in (*contents, *links, *directories):
        for parent in _parents(path):
            directories.setdefault(parent, Metadata(0o755, mtime_ns=now))
    written = _write(directory / "rootfs", directories, links, contents, now, privileged=privileged)
    return written, len(directories) + len(links) + len(contents), tuple(skipped[:_MAX_SKIPPED])


def _unusable(why: str) -> errors.NotFound:
    return errors.NotFound(
        f"cannot use this host as an image: {why}",
        kind="image",
        id="host",
        hint="name a directory (dir:<path>) or an archive instead",
    )


def _check_readable(usr: Path) -> None:
    for path in (usr, usr / "bin"):
        try:
            facts = path.stat()
        except OSError as error:
            raise _unusable(f"it has no {path}") from error
        if not surveys.is_listable(facts.st_mode):
            raise _unusable(f"not everybody may read {path}")


def _top_level(root: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which of /bin, /lib … are links into /usr, and which are directories of their own, /usr before them."""
    links: dict[str, str] = {}
    directories = ["usr"]
    for name in skeletons.TOP_LEVEL:
        path = root / name
        if path.is_symlink():
            target = posixpath.normpath(posixpath.join("/", path.readlink()))[1:]
            if target.split("/")[0] in {"usr", *skeletons.TOP_LEVEL}:
                links[name] = target
        elif path.is_dir():
            directories.append(name)
    return links, tuple(directories)


def _executable(program: Path) -> bool:
    """Tell whether everybody may execute a program of the host."""
    try:
        facts = program.stat()
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & 0o001)


def _is_private(directory: Path) -> bool:
    """Tell whether anything in a directory is not for everybody, or there is too much to know."""
    if not directory.is_dir() or directory.is_symlink():
        return False
    seen = 0
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        try:
            if not surveys.is_listable(here.stat().st_mode):
                return True
            for path in here.iterdir():
                seen += 1
                facts = path.lstat()
                if (stat.S_ISREG(facts.st_mode) and not facts.st_mode & 0o004) or seen > _MAX_ITEMS:
                    return True
                if stat.S_ISDIR(facts.st_mode):
                    waiting.append(path)
        except OSError:
            return True
    return False


def _take(
    host: Host,
    directories: dict[str, Metadata],
    links: dict[str, str],
    contents: dict[str, tuple[bytes, Metadata]],
    now: int,
) -> list[str]:
    """Add what is copied to what is made; return the files that could not be taken."""
    skipped = []
    room = _MAX_BYTES
    for path, item in host.items.items():
        if path in contents or path in links:
            continue
        if item.kind == "directory":
            directories.setdefault(path, Metadata(0o755, mtime_ns=now))
        elif item.kind == "link":
            links[path] = item.target
        elif (copied := surveys.copy(host.root, path)) is None or len(copied[0]) > room:
            skipped.append(path)
        else:
            room -= len(copied[0])
            contents[path] = copied
    return skipped


def _furnish_homes(contents: dict[str, tuple[bytes, Metadata]]) -> None:
    """Give both homes what new accounts of the host get."""
    skeleton = "etc/skel/"
    for path in [path for path in contents if path.startswith(skeleton)]:
        content, metadata = contents[path]
        name = path.removeprefix(skeleton)
        if "/" not in name:
            contents[f"root/{name}"] = (content, metadata)
            own = dataclasses.replace(metadata, uid=skeletons.USER_ID, gid=skeletons.USER_ID)
            contents[f"home/user/{name}"] = (content, own)


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _write(
    root: Path,
    directories: Mapping[str, Metadata],
    links: Mapping[str, str],
    contents: Mapping[str, tuple[bytes, Metadata]],
    now: int,
    *,
    privileged: bool,
) -> int:
    """Write everything and return the bytes of the files."""
    with unpackers.Unpacker(root, privileged=privileged) as unpacker:
        for path in sorted(directories):
            unpacker.perform(trees.MakeDirectory(_components(path)))
        for path, (content, metadata) in contents.items():
            unpacker.perform(trees.WriteFile(_components(path), metadata), io.BytesIO(content).read)
        for path, target in links.items():
            unpacker.perform(trees.MakeSymlink(_components(path), os.fsencode(target), Metadata(0o777, mtime_ns=now)))
        for path in sorted(directories, reverse=True):
            unpacker.finish_directory(_components(path), directories[path])
        unpacker.finish_directory((), Metadata(0o755, mtime_ns=now))
        return unpacker.bytes


def _components(path: str) -> trees.Path:
    return tuple(os.fsencode(part) for part in path.split("/"))
