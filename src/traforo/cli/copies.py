"""Copies between this machine and a sandbox: which side is which, and the name that a copy gets within a directory."""

from __future__ import annotations

import posixpath
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from traforo.cli import meters, printers

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
        with meters.Meter(target) as meter:
            files.write(target, _read(meter), user=user)
        return
    local = Path(source)
    facts = local.stat()
    if target.endswith("/") or files.stat(target, user=user).type == "directory":
        target = posixpath.join(target, local.resolve().name)
    mode = None if stat.S_ISDIR(facts.st_mode) else stat.S_IMODE(facts.st_mode)
    with meters.Meter(source) as meter:
        files.upload(local, target, user=user, mode=mode, progress=meter.set if sys.stderr.isatty() else None)


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
        if not name:
            raise printers.UsageError(f"cannot copy {source!r} into a directory: it has no name", "name the copy")
        local /= name
    facts = files.stat(source, user=user)
    with meters.Meter(source) as meter:
        shown = meter.set if sys.stderr.isatty() else None
        files.download(source, local, user=user, progress=shown, skipped=_skipped)
    if facts.mode is not None and local.is_file():  # a link says nothing of who may read what it leads to
        local.chmod(facts.mode & 0o777 if facts.type == "file" else 0o600)


def _skipped(name: str) -> None:
    printers.note(f"note: skipped {name!r}: a link that leads out of the directory")


def _read(meter: meters.Meter) -> Iterator[bytes]:
    while block := sys.stdin.buffer.read(BLOCK_BYTES):
        meter.add(len(block))
        yield block
