"""Copies between this machine and a sandbox: which side is which, and trees file by file.

What a sandbox lists is hostile. A name from there becomes a local path only below the directory that was asked for,
links are never followed or made, and nothing but directories and regular files is written.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from traforo.cli import printers

if TYPE_CHECKING:
    from traforo.sdk import Files

BLOCK_BYTES = 256 * 1024
STANDARD = "-"
"""A local path that means stdin or stdout."""


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a copy."""

    sandbox_id: str | None
    """None is this machine."""
    path: str


def place(text: str) -> Place:
    """Read `ID:/path` or a local path. A local path with a colon in its first part is written `./a:b`."""
    name, colon, path = text.partition(":")
    if not colon or not name or "/" in name:
        return Place(None, text)
    if not path.startswith("/"):
        raise printers.UsageError(f"cannot copy {text!r}: a path in a sandbox is absolute", "write ID:/path")
    return Place(name, path)


def upload(files: Files, source: str, target: str, *, user: str | None) -> None:
    """Copy a local file or directory to `target`, into it if it is a directory. Raises OSError, `TraforoError`."""
    if source == STANDARD:
        files.write(target, iter(lambda: sys.stdin.buffer.read(BLOCK_BYTES), b""), user=user)
        return
    local = Path(source)
    facts = local.stat()
    if target.endswith("/") or files.stat(target, user=user).type == "directory":
        target = posixpath.join(target, local.resolve().name)
    if not _is_directory(facts):
        files.upload(local, target, user=user)
        return
    files.mkdir(target, user=user)
    for path, relative in _walk(local):
        inside = posixpath.join(target, relative)
        if path.is_symlink():
            printers.note(f"note: skipped the link {str(path)!r}")
        elif path.is_dir():
            files.mkdir(inside, user=user)
        elif path.is_file():
            files.upload(path, inside, user=user)
        else:
            printers.note(f"note: skipped {str(path)!r}: not a file")


def download(files: Files, source: str, target: str, *, user: str | None) -> None:
    """Copy a file or directory of a sandbox to a local path, into it if it is a directory."""
    if target == STANDARD:
        for block in files.stream(source, user=user):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    local = Path(target)
    if local.is_dir() or target.endswith("/"):
        name = posixpath.basename(posixpath.normpath(source))
        local /= safe_parts(name)[0]
    if files.stat(source, user=user).type != "directory":
        files.download(source, local, user=user)
        return
    _download_tree(files, source, local, user)


def _download_tree(files: Files, source: str, local: Path, user: str | None) -> None:
    local.mkdir(exist_ok=True)
    root = posixpath.normpath(source)
    for entry in files.list(source, recursive=True, user=user):
        target = below(local, safe_parts(posixpath.relpath(entry.path, root)))
        if entry.type == "directory":
            target.mkdir(exist_ok=True)
        elif entry.type == "file":
            files.download(entry.path, target, user=user)
        else:
            printers.note(f"note: skipped {entry.path!r}: a {entry.type}")


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
    if path.is_symlink():
        raise ValueError(f"cannot write {str(path)!r}: a link")
    return path


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    for directory, names, files in os.walk(root):
        names.sort()
        for name in [*names, *sorted(files)]:
            path = Path(directory) / name
            yield path, path.relative_to(root).as_posix()


def _is_directory(facts: os.stat_result) -> bool:
    import stat

    return stat.S_ISDIR(facts.st_mode)
