"""Carries out what `trees` decided, below one directory and nowhere else.

Each component of a path is opened by itself, relative to the descriptor of the one above, and never through a link
(O_NOFOLLOW): even where the decision were wrong, the kernel would refuse to leave the tree. New files are made with
O_EXCL, so nothing that is there is ever written through, neither a link nor the other name of a hard-linked file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path as FilePath
from types import TracebackType
from typing import Self

from traforo.worker.images import readers, tars, trees
from traforo.worker.images.trees import Metadata, Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _no_content(_size: int) -> bytes:
    return b""


class Unpacker:
    """Makes files below `root`, which must be an empty directory. A context manager: it holds descriptors."""

    def __init__(self, root: FilePath, *, privileged: bool) -> None:
        """Open the root. With `privileged` owners are set; without, everything belongs to the worker's own user."""
        self.bytes = 0
        """Bytes of file content written."""
        self._privileged = privileged
        self._root = os.open(root, _DIRECTORY)
        self._open: list[tuple[bytes, int]] = []
        """Names and descriptors of the directories on the way to the one used last."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every descriptor."""
        self._close_below(0)
        os.close(self._root)

    def perform(self, operation: trees.Operation, content: Callable[[int], bytes] = _no_content) -> None:
        """Carry out one operation; `content` gives the bytes of a new file, none at its end."""
        parent = self._directory(operation.path[:-1])
        name = operation.path[-1]
        match operation:
            case trees.MakeDirectory():
                os.mkdir(name, 0o700, dir_fd=parent)
            case trees.Remove(directory=False):
                os.unlink(name, dir_fd=parent)
            case trees.Remove():
                # It is not open any more: of the way to `parent` nothing below is kept.
                shutil.rmtree(name, dir_fd=parent)
            case trees.WriteFile(metadata=metadata):
                self._write(parent, name, metadata, content)
            case trees.MakeSymlink(target=target, metadata=metadata):
                os.symlink(target, name, dir_fd=parent)
                if self._privileged:
                    os.chown(name, metadata.uid, metadata.gid, dir_fd=parent, follow_symlinks=False)
                times = (metadata.mtime_ns, metadata.mtime_ns)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            case trees.MakeHardlink(target=target):
                # Opening the way to the target may close the parent.
                parent = os.dup(parent)
                try:
                    source = self._directory(target[:-1])
                    os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                finally:
                    os.close(parent)

    def finish_directory(self, path: Path, metadata: Metadata) -> None:
        """Give a directory its metadata, after everything below it was made."""
        # An owner that is not root must be able to list and to remove what it unpacked.
        mode = metadata.mode if self._privileged else metadata.mode | 0o700
        self._settle(self._directory(path), mode, metadata)

    def _write(self, parent: int, name: bytes, metadata: Metadata, content: Callable[[int], bytes]) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            while data := content(readers.CHUNK):
                self.bytes += len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            self._settle(descriptor, metadata.mode if self._privileged else metadata.mode | 0o400, metadata)
        finally:
            os.close(descriptor)

    def _settle(self, descriptor: int, mode: int, metadata: Metadata) -> None:
        """Set owner, permissions and time; in this order, for a change of owner takes the set-id bits away."""
        if self._privileged:
            os.fchown(descriptor, metadata.uid, metadata.gid)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(metadata.mtime_ns, metadata.mtime_ns))

    def _directory(self, path: Path) -> int:
        """Return a descriptor of a directory, one component at a time, keeping what the last path had in common."""
        common = 0
        for (name, _), part in zip(self._open, path, strict=False):
            if name != part:
                break
            common += 1
        self._close_below(common)
        descriptor = self._open[-1][1] if self._open else self._root
        for part in path[common:]:
            descriptor = os.open(part, _DIRECTORY, dir_fd=descriptor)
            self._open.append((part, descriptor))
        return descriptor

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])


def unpack_layer(stream: readers.Reader, tree: trees.Tree, unpacker: Unpacker) -> None:
    """Apply one layer, a tar stream, and read it to its very end, where its digest is complete.

    Raises `InvalidRequest` with the entry named, `TooLarge`, or OSError where this host cannot hold the file.
    """
    tree.next_layer()
    tar = tars.TarReader(stream)
    for entry in tar:
        for operation in tree.apply(entry):
            unpacker.perform(operation, tar.read)
    readers.drain(stream)
