"""Files of a fake sandbox: a directory of the host that plays the root. Links are resolved as inside a chroot.

There is one user as far as rights go, the one that runs the tests; names of users are checked and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat as stats
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.fakes import watches
from traforo.domain import errors
from traforo.worker.runtimes import contract

T = TypeVar("T")

HOMES = {"root": "/root", "user": "/home/user"}
"""Users that a fake sandbox has, and their homes."""
_MAX_LINKS = 40


def home(user: str) -> str:
    """Return the home of a user. Numbers are users too. Raises `NotFound`."""
    name = user.split(":", 1)[0]
    if name.isdecimal():
        return "/"
    if name not in HOMES:
        raise errors.NotFound(f"no user {user!r}", kind="user", id=user)
    return HOMES[name]


def resolve(root: Path, path: str, *, follow: bool = True) -> Path:
    """Return where `path` of the sandbox is on the host; the last component need not exist."""
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > contract.MAX_PATH_BYTES:
        raise errors.InvalidRequest(f"cannot use the path {path[:80]!r}: it must be absolute", field="path")
    todo = [part for part in path.split("/") if part not in {"", "."}]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink() and (todo or follow):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = str(here.readlink())
            done = [] if target.startswith("/") else done
            todo = [piece for piece in target.split("/") if piece not in {"", "."}] + todo
            continue
        done.append(part)
    return root.joinpath(*done)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translate(error, path) from error


def _translate(error: OSError, path: str) -> errors.TraforoError:
    text = f"cannot use {path[:200]!r}: {os.strerror(error.errno or 0).lower()}"
    if error.errno == errno.ENOENT:
        return errors.NotFound(text, kind="file", id=path)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return errors.Forbidden(text)
    if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
        return errors.Conflict(text)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return errors.DiskFull(text)
    return errors.InvalidRequest(text, field="path")


class FakeFiles:
    """`contract.Files` over a directory of the host. `root` is made when it is first asked for."""

    def __init__(self, root: Callable[[], Path]) -> None:
        self._root = root

    async def _run(self, path: str, user: str, action: Callable[[Path], T]) -> T:
        def inside() -> T:
            home(user)
            with _translated(path):
                return action(self._root())

        return await asyncio.to_thread(inside)

    async def open(self, path: str, flags: int, mode: int = 0o644, *, user: str) -> int:
        def action(root: Path) -> int:
            place = resolve(root, path)
            if flags & os.O_CREAT:
                _make_parents(place)
            with contextlib.suppress(FileNotFoundError):
                if not stats.S_ISREG(place.stat().st_mode):
                    raise errors.InvalidRequest(f"cannot open {path!r}: not a regular file", field="path")
            return os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)

        return await self._run(path, user, action)

    async def stat(self, path: str, *, user: str, follow: bool = True) -> contract.FileStat:
        return await self._run(path, user, lambda root: _facts(resolve(root, path, follow=follow), path))

    async def list(self, path: str, *, user: str, recursive: bool, limit: int) -> contract.Listing:
        def action(root: Path) -> contract.Listing:
            found: list[contract.FileStat] = []
            todo = [(resolve(root, path), path.rstrip("/"))]
            while todo:
                directory, shown = todo.pop()
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if len(found) == limit:
                            return contract.Listing(found, truncated=True)
                        name = f"{shown}/{entry.name}"
                        found.append(_facts(Path(entry.path), name))
                        if recursive and entry.is_dir(follow_symlinks=False):
                            todo.append((Path(entry.path), name))
            return contract.Listing(found, truncated=False)

        return await self._run(path, user, action)

    async def fill(self, descriptor: int, source: int, path: str, *, user: str) -> None:
        """Write what comes from a source."""
        while data := await asyncio.to_thread(os.read, source, 1 << 16):
            os.write(descriptor, data)

    def direct(self, count: int) -> bool:
        """Nobody counts memory here."""
        return True

    async def mkdir(self, path: str, mode: int = 0o755, *, user: str, parents: bool) -> bool:
        def action(root: Path) -> bool:
            place = resolve(root, path)
            if place.is_dir():
                return False
            if place.exists():
                raise errors.InvalidRequest(f"cannot make the directory {path!r}: it is a file", field="path")
            place.mkdir(mode, parents=parents)
            return True

        return await self._run(path, user, action)

    async def remove(self, path: str, *, user: str, recursive: bool) -> None:
        def action(root: Path) -> None:
            place = resolve(root, path, follow=False)
            if place == root:
                raise errors.InvalidRequest("cannot remove '/'", field="path")
            if not stats.S_ISDIR(place.lstat().st_mode):
                place.unlink()
            elif recursive:
                shutil.rmtree(place)
            else:
                place.rmdir()

        await self._run(path, user, action)

    async def draft(self, path: str, mode: int = 0o644, *, user: str) -> int:
        def action(root: Path) -> int:
            place = resolve(root, path, follow=False)
            _make_parents(place)
            return os.open(place.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode)

        return await self._run(path, user, action)

    async def place(self, descriptor: int, path: str, *, user: str, exclusive: bool) -> None:
        def action(root: Path) -> None:
            place = resolve(root, path, follow=False)
            if exclusive:
                _link_open(descriptor, place)
                return
            beside = place.with_name(f".traforo-{descriptor}")
            _link_open(descriptor, beside)
            try:
                beside.rename(place)
            except OSError:
                beside.unlink()
                raise

        await self._run(path, user, action)

    async def rename(self, path: str, to: str, *, user: str, exclusive: bool = False) -> None:
        def action(root: Path) -> None:
            place = resolve(root, to, follow=False)
            if exclusive and os.path.lexists(place):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
            resolve(root, path, follow=False).rename(place)

        await self._run(path, user, action)

    async def change(
        self,
        path: str,
        *,
        user: str,
        follow: bool = True,
        below: str | None = None,
        descriptor: int | None = None,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_at: float | None = None,
    ) -> None:
        def action(root: Path) -> None:
            if descriptor is not None:
                _change_open(descriptor, mode, uid, gid, modified_at)
                return
            place = resolve(root, path, follow=follow)
            if below is not None:
                place = _below(place, below)
            if mode is not None and place.is_symlink():
                raise errors.InvalidRequest(f"cannot change {path!r}: a link has no mode", field="path")
            if uid is not None or gid is not None:
                owner = -1 if uid is None else uid
                os.chown(place, owner, -1 if gid is None else gid, follow_symlinks=False)
            if mode is not None:
                place.chmod(mode)
            if modified_at is not None:
                times = place.lstat().st_atime_ns, round(modified_at * 1e9)
                os.utime(place, ns=times, follow_symlinks=False)
            place.lstat()

        await self._run(path, user, action)

    async def symlink(self, target: str, path: str, *, user: str) -> None:
        if not target or "\0" in target:
            raise errors.InvalidRequest("cannot make a link to nothing", field="target")
        await self._run(path, user, lambda root: resolve(root, path, follow=False).symlink_to(target))

    async def link(self, existing: str, path: str, *, user: str) -> None:
        def action(root: Path) -> None:
            place, source = resolve(root, path, follow=False), resolve(root, existing, follow=False)
            if source.is_dir() and not source.is_symlink():
                raise errors.Forbidden(f"cannot link {existing!r}: a directory has one name")
            os.link(source, place, follow_symlinks=False)

        await self._run(existing, user, action)

    async def watch(self, path: str, *, user: str, recursive: bool) -> contract.Watch:
        def action(root: Path) -> watches.FakeWatch:
            place = resolve(root, path)
            if not stats.S_ISDIR(place.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return watches.FakeWatch(place, path.rstrip("/") or "/", recursive=recursive)

        return await self._run(path, user, action)


def _make_parents(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # said of a parent that is a file
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place)) from error


def _below(base: Path, path: str) -> Path:
    """Return what is at a relative path, if no link is on the way."""
    place = base.joinpath(path)
    for part in place.relative_to(base).parents:
        if base.joinpath(part).is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return place


def _change_open(
    descriptor: int, mode: int | None, uid: int | None, gid: int | None, modified_at: float | None
) -> None:
    os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    if mode is not None:
        os.fchmod(descriptor, mode)
    if modified_at is not None:
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, round(modified_at * 1e9)))


def _link_open(descriptor: int, place: Path) -> None:
    """Give an open file a name."""
    links = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(descriptor), place, src_dir_fd=links, follow_symlinks=True)
    finally:
        os.close(links)


def _facts(place: Path, shown: str) -> contract.FileStat:
    found = place.lstat()
    kind = contract.FileKind.OTHER
    for test, name in (
        (stats.S_ISREG, contract.FileKind.FILE),
        (stats.S_ISDIR, contract.FileKind.DIRECTORY),
        (stats.S_ISLNK, contract.FileKind.SYMLINK),
    ):
        kind = name if test(found.st_mode) else kind
    return contract.FileStat(
        path=shown,
        kind=kind,
        size=found.st_size if kind is contract.FileKind.FILE else 0,
        mode=stats.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        modified_at=found.st_mtime,
        target=str(place.readlink()) if kind is contract.FileKind.SYMLINK else None,
        modified_ns=found.st_mtime_ns,
        inode=found.st_ino if kind is contract.FileKind.FILE else None,
    )
