"""A watch of a fake sandbox: it looks at the directory again and again, and tells what is different."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from traforo.worker.runtimes import contract

_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class _Entry:
    inode: int
    directory: bool
    content: tuple[int, int]
    attributes: tuple[int, int, int]


def _look(root: Path, *, recursive: bool) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    todo = [(root, "")]
    while todo:
        directory, prefix = todo.pop()
        try:
            names = os.listdir(directory)
        except OSError:
            if not prefix:
                raise
            continue
        for name in names:
            try:
                facts = (directory / name).lstat()
            except OSError:
                continue
            is_directory = stat.S_ISDIR(facts.st_mode)
            content = (0, 0) if is_directory else (facts.st_mtime_ns, facts.st_size)
            found[prefix + name] = _Entry(
                facts.st_ino, is_directory, content, (facts.st_mode, facts.st_uid, facts.st_gid)
            )
            if is_directory and recursive:
                todo.append((directory / name, f"{prefix}{name}/"))
    return found


class FakeWatch:
    """`contract.Watch` over a directory of the host."""

    def __init__(self, place: Path, shown: str, *, recursive: bool) -> None:
        self._place = place
        self._prefix = shown.rstrip("/") + "/"
        self._recursive = recursive
        self._before = _look(place, recursive=recursive)
        self._closed = False

    async def changes(self) -> Sequence[contract.Change]:
        while not self._closed:
            try:
                now = await asyncio.to_thread(_look, self._place, recursive=self._recursive)
            except OSError:
                break
            before, self._before = self._before, now
            found = list(self._compare(before, now))
            if found:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)
        return []

    def _compare(self, before: dict[str, _Entry], now: dict[str, _Entry]) -> list[contract.Change]:
        kinds, prefix = contract.ChangeKind, self._prefix
        found: list[contract.Change] = []
        gone = {entry.inode: name for name, entry in before.items() if name not in now}
        for name, entry in sorted(now.items()):
            old = before.get(name)
            if old is None:
                origin = gone.pop(entry.inode, None)
                moved_from = prefix + origin if origin is not None else None
                found.append(contract.Change(kinds.CREATED, prefix + name, entry.directory, moved_from))
            elif old.content != entry.content or old.inode != entry.inode:
                found.append(contract.Change(kinds.MODIFIED, prefix + name, entry.directory))
            elif old.attributes != entry.attributes:
                found.append(contract.Change(kinds.ATTRIBUTES, prefix + name, entry.directory))
        moved = {change.path + "/" for change in found if change.moved_from is not None}
        found = [change for change in found if change.moved_from is None or not change.path.startswith(tuple(moved))]
        left = sorted(gone.values(), reverse=True)
        return found + [contract.Change(kinds.DELETED, prefix + name, before[name].directory) for name in left]

    async def close(self) -> None:
        self._closed = True
