"""Trees as tar streams: packed from this machine as they are read, unpacked here as they come.

What comes from a sandbox is hostile. A name becomes a local path only below the directory that was asked for; links are
made last, only where they point within it, and nothing is ever written through one.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from traforo.cli import printers

BLOCK_BYTES = 256 * 1024
_RECORD = tarfile.BLOCKSIZE
_MODE_BITS = 0o777
Told = Callable[[int], object]
"""Told how many bytes of content went through."""


def pack(root: Path, told: Told | None = None) -> Iterator[bytes]:
    """Give out a directory as a tar stream. Raises OSError, also for a file that was made shorter while it was read."""
    for path, relative in _walk(root):
        facts = path.lstat()
        info = _header(path, relative, facts)
        if info is None:
            continue
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(path, info.size, told)
    yield b"\0" * (2 * _RECORD)


def total(root: Path) -> int:
    """Return how many bytes of content a directory has."""
    return sum(path.lstat().st_size for path, _ in _walk(root) if path.is_file() and not path.is_symlink())


def _header(path: Path, relative: str, facts: os.stat_result) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(relative)
    info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
    if stat.S_ISDIR(facts.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISREG(facts.st_mode):
        info.size = facts.st_size
    elif stat.S_ISLNK(facts.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        if not leads_within(relative, info.linkname):
            printers.note(f"note: skipped {str(path)!r}: a link that leads out of the directory")
            return None
    else:
        printers.note(f"note: skipped {str(path)!r}: not a file")
        return None
    return info


def _content(path: Path, size: int, told: Told | None) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"cannot copy {str(path)!r}: it was made shorter meanwhile")
            left -= len(block)
            if told is not None:
                told(len(block))
            yield block
    if size % _RECORD:
        yield b"\0" * (_RECORD - size % _RECORD)


def unpack(blocks: Iterable[bytes], root: Path, told: Told | None = None) -> None:
    """Write a tar stream below a directory, which is made. Raises OSError; ValueError for what leads elsewhere."""
    root.mkdir(exist_ok=True)
    directories: list[tuple[Path, tarfile.TarInfo]] = []
    links: list[tuple[str, str]] = []
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Reader(blocks)), mode="r|", errorlevel=2) as archive:
            while (info := archive.next()) is not None:
                cast("Any", archive).members = []  # they are kept otherwise, and there may be millions
                name = info.name.removeprefix("./").rstrip("/")
                if name in {"", "."}:
                    continue
                path = below(root, safe_parts(name))
                if info.isdir():
                    path.mkdir(exist_ok=True, parents=True)
                    directories.append((path, info))
                elif info.isreg():
                    _write(archive, info, path, told)
                elif info.issym() and leads_within(name, info.linkname):
                    links.append((name, info.linkname))
                elif info.islnk():
                    _again(below(root, safe_parts(info.linkname.removeprefix("./"))), path)
                else:
                    why = "a link that leads out of the directory" if info.issym() else "not a file"
                    printers.note(f"note: skipped {name!r}: {why}")
    except tarfile.TarError as error:
        raise ValueError(f"cannot read what the sandbox sent: {error}") from error
    for name, target in links:
        _link(below(root, safe_parts(name)), target)  # looked at once more: those before it may be on its way
    for path, info in reversed(directories):
        path.chmod(info.mode & _MODE_BITS)
        os.utime(path, (info.mtime, info.mtime))


def _write(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path, told: Told | None) -> None:
    source = archive.extractfile(info)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        while source is not None and (block := source.read(BLOCK_BYTES)):
            target.write(block)
            if told is not None:
                told(len(block))
        os.fchmod(target.fileno(), info.mode & _MODE_BITS)
    os.utime(path, (info.mtime, info.mtime))


def _again(first: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    os.link(first, path, follow_symlinks=False)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.symlink_to(target)


def _remove(path: Path) -> None:
    if path.is_file():
        path.unlink()


def leads_within(name: str, target: str) -> bool:
    """Return whether a link of this name, relative to a directory, points to something within that directory.

    `..` may stand at its beginning alone: a step up from another link would not be from where its name stands, so links
    that stay within one by one could lead out together.
    """
    if target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return ".." not in parts[ups:] and ups <= name.count("/")


def safe_parts(relative: str) -> tuple[str, ...]:
    """Return the parts of a relative path from a sandbox. Raises ValueError for one that leads elsewhere."""
    parts = tuple(relative.split("/"))
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise ValueError(f"cannot copy {relative!r}: not a path below the directory")
    return parts


def below(root: Path, parts: tuple[str, ...]) -> Path:
    """Return the path of these parts below `root`. Raises ValueError if a link on the way leads out of it."""
    path = root
    for part in parts:
        if path.is_symlink() and path != root:
            raise ValueError(f"cannot write below {str(path)!r}: a link")
        path /= part
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"cannot write {str(path)!r}: a link")
    return path


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    for directory, names, files in os.walk(root):
        names.sort()
        for name in [*names, *sorted(files)]:
            path = Path(directory) / name
            yield path, path.relative_to(root).as_posix()


class _Reader:
    """Blocks that come one after the other, as a file."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < size:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(block)
            have += len(block)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]
