"""Local directories as tar streams: packed as they are read, unpacked as they come. Blocking code, as in `disks`.

What comes out of a sandbox is hostile. A name becomes a local path only below the directory that was asked for; links
are made last, only where they point within it, and nothing is ever written through one.
"""

from __future__ import annotations

import math
import os
import queue
import stat
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self, cast

from traforo.sdk import disks, errors

BLOCK_BYTES = 256 * 1024
"""About how much is given out, read or written at once."""
WAITING_BLOCKS = 4
"""Blocks that may wait to be unpacked."""
MAX_HEADER_BYTES = 1024 * 1024
"""Largest header that only says something of the entry behind it, such as a long name: it is read as a whole."""
_RECORD = tarfile.BLOCKSIZE
_MODE_BITS = 0o777
_LAST_SECOND = 1 << 40
_ODD = (tarfile.TarError, ValueError, ArithmeticError, RecursionError)
"""What `tarfile` raises for what is no archive."""
_EXTENSIONS = frozenset(
    {
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    }
)


# ------------------------------------------------------------------------------------------------------- packing


class Packing:
    """What is below a local directory as a tar stream: files, directories, and links as they are. Devices, FIFOs and
    sockets are left out.
    """

    def __init__(self, root: str | os.PathLike[str], progress: disks.Progress = None) -> None:
        """Nothing is read yet. `progress` is told bytes of content, and how many there are."""
        self.done = 0
        """Bytes of content that were given out."""
        self._root = Path(root)
        self._progress = progress

    def blocks(self) -> Iterator[bytes]:
        """Give out the stream, once. Raises OSError, also for what was made shorter or removed meanwhile."""
        waiting: list[bytes] = []
        size = 0
        for data in self._records():
            waiting.append(data)
            size += len(data)
            if size >= BLOCK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
        waiting.append(b"\0" * (2 * _RECORD))
        yield b"".join(waiting)

    def _records(self) -> Iterator[bytes]:
        size = _total(self._root) if self._progress else None
        for path, relative in _walk(self._root):
            info = _header(path, relative)
            if info is None:
                continue
            yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            if info.isreg():
                for block in _content(path, info.size):
                    self.done += len(block)
                    if self._progress:
                        self._progress(self.done, size)
                    yield block
                yield b"\0" * (-info.size % _RECORD)


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    def refuse(error: OSError) -> None:
        raise error

    for directory, names, files in os.walk(root, onerror=refuse):
        names.sort()
        for name in [*names, *sorted(files)]:
            path = Path(directory) / name
            yield path, path.relative_to(root).as_posix()


def _total(root: Path) -> int:
    found = (path.lstat() for path, _ in _walk(root))
    return sum(facts.st_size for facts in found if stat.S_ISREG(facts.st_mode))


def _header(path: Path, relative: str) -> tarfile.TarInfo | None:
    facts = path.lstat()
    info = tarfile.TarInfo(relative)
    info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
    if stat.S_ISDIR(facts.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISREG(facts.st_mode):
        info.size = facts.st_size
    elif stat.S_ISLNK(facts.st_mode):
        info.type = tarfile.SYMTYPE
        info.linkname = os.readlink(path)  # noqa: PTH115 - as it is written: a Path would tidy it
    else:
        return None
    return info


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"cannot copy {str(path)!r}: it was made shorter meanwhile")
            left -= len(block)
            yield block


# ----------------------------------------------------------------------------------------------------- unpacking


class Unpacking:
    """A local directory that a tar stream is written to, in a thread of its own, because `tarfile` can only pull.

    Each `write` hands on a block and raises what went wrong with those before it; `finish` or `discard` ends it.
    """

    def __init__(self, root: str | os.PathLike[str], *, skip_links: bool = False) -> None:
        """Begin. With `skip_links`, links that lead out are left out and not refused."""
        self.skipped: list[str] = []
        """Names of the links that were left out."""
        self.done = 0
        """Bytes of content that were written."""
        self._root = Path(root)
        self._skip_links = skip_links
        self._blocks: queue.Queue[bytes | None] = queue.Queue(WAITING_BLOCKS)
        self._given_up = False
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="traforo-unpacking", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Hand on a block. Raises OSError, `UnsafeArchive`, `BadAnswer` of blocks before it."""
        if self._problem is not None:
            raise self._problem
        self._blocks.put(block)

    def finish(self) -> None:
        """Return when all is written. Raises as `write`."""
        self._end()
        if self._problem is not None:
            raise self._problem

    def discard(self) -> None:
        """Stop. What was written stays."""
        self._given_up = True
        self._end()

    def _end(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _run(self) -> None:
        blocks = iter(self._blocks.get, None)
        try:
            self._unpack(blocks)
        except _ODD as error:
            problem = errors.BadAnswer(f"cannot unpack what the sandbox sent: {error}")
            problem.__cause__ = error
            self._problem = problem
        except (OSError, errors.TraforoError) as error:
            self._problem = error
        for _ in blocks:  # what comes behind the archive, or was on its way when it failed
            pass

    def _unpack(self, blocks: Iterable[bytes]) -> None:
        root = self._root
        root.mkdir(exist_ok=True)
        directories: list[tuple[Path, tarfile.TarInfo]] = []
        links: list[tuple[tuple[str, ...], str]] = []
        source = cast("IO[bytes]", _Reader(blocks))
        with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header, errorlevel=2) as archive:
            while (info := archive.next()) is not None:
                cast("Any", archive).members = []  # they are kept otherwise, and there may be many
                if info.name.rstrip("/") in {"", "."}:
                    continue
                parts = _parts(info.name.rstrip("/"), info.name)
                name = "/".join(parts)
                if info.isdir():
                    directories.append((_directory(root, parts), info))
                elif info.isreg() and not info.issparse():
                    self._write(archive, info, _place(root, parts))
                elif info.issym():
                    if leads_within(parts, info.linkname):
                        links.append((parts, info.linkname))
                    elif self._skip_links:
                        self.skipped.append(name)
                    else:
                        raise _unsafe(name, f"a link to {info.linkname[:200]!r}, out of the directory")
                elif info.islnk():
                    _hard_link(root, _parts(info.linkname, name), parts)
                else:
                    raise _unsafe(name, "neither a file, nor a directory, nor a link")
        if self._given_up:
            return
        for parts, target in links:
            _place(root, parts).symlink_to(target)  # its place is looked at now: links before it may be on the way
        for path, info in reversed(directories):
            path.chmod(info.mode & _MODE_BITS)
            os.utime(path, _times(info))

    def _write(self, archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
        source = archive.extractfile(info)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while source is not None and (block := source.read(BLOCK_BYTES)):
                file.write(block)
                self.done += len(block)
            os.fchmod(file.fileno(), info.mode & _MODE_BITS)
        os.utime(path, _times(info))


def leads_within(parts: tuple[str, ...], target: str) -> bool:
    """Return whether a link at these parts of a path below a directory points to something within that directory.

    `..` may stand at its beginning alone: a step up from another link would not be from where its name stands, so links
    that stay within one by one could lead out together.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((at for at, part in enumerate(steps) if part != ".."), len(steps))
    return ".." not in steps[ups:] and ups < len(parts)


def _parts(name: str, entry: str) -> tuple[str, ...]:
    parts = tuple(name.removeprefix("./").split("/"))
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise _unsafe(entry, f"{name[:200]!r} is no path below the directory")
    return parts


def _way(root: Path, parts: tuple[str, ...], entry: str) -> Path:
    """Return a path below `root`, no directory on the way to which is a link."""
    path = root
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise _unsafe(entry, f"{str(path)!r} is a link")
    return path / parts[-1]


def _place(root: Path, parts: tuple[str, ...]) -> Path:
    """Return where to make something new: in a directory that is there, with no older file or link in the way."""
    path = _way(root, parts, "/".join(parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    return path


def _directory(root: Path, parts: tuple[str, ...]) -> Path:
    path = _way(root, parts, "/".join(parts))
    if path.is_symlink():
        raise _unsafe("/".join(parts), f"{str(path)!r} is a link")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _hard_link(root: Path, first: tuple[str, ...], parts: tuple[str, ...]) -> None:
    source = _way(root, first, "/".join(parts))
    if source.is_symlink() or not source.is_file():
        raise _unsafe("/".join(parts), f"another name of {'/'.join(first)!r}, which is no file")
    if first != parts:
        os.link(source, _place(root, parts), follow_symlinks=False)


def _times(info: tarfile.TarInfo) -> tuple[float, float]:
    moment = info.mtime if math.isfinite(info.mtime) else 0
    moment = min(max(moment, -_LAST_SECOND), _LAST_SECOND)
    return moment, moment


def _unsafe(entry: str, why: str) -> errors.UnsafeArchive:
    return errors.UnsafeArchive(f"cannot unpack {entry[:200]!r}: {why}", fields={"entry": entry})


class _Header(tarfile.TarInfo):
    """A header that does not make `tarfile` read any amount into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _EXTENSIONS and found.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


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
