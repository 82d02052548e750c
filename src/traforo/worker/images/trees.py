"""Decides what the entries of an image's layers do to one tree. Pure: it knows names and kinds and touches no file.

Every entry becomes a list of operations on paths whose parents are known to be real directories, so that whoever
carries them out never has to follow a link. Whiteouts (`.wh.<name>`) and opaque directories (`.wh..wh..opq`) hide what
lower layers brought and nothing of their own layer, in whatever order the entries stand.

A name that leads through a link or a file of a *lower* layer puts a directory in its place, as an overlay of the layers
shows it. Within one layer it is refused: there tools disagree, and attackers begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.images import tars
from traforo.worker.images.limits import Limits
from traforo.worker.images.tars import Entry, Kind

Path = tuple[bytes, ...]
"""Components of a path below the root of the image; the root itself has none."""

_MAX_ID = 65535
_MAX_COMPONENT = 255
_MAX_PATH = 4095
_MAX_DEPTH = 200
"""Components of one path: far above every real tree, and what recursion stands."""
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_ENGINE_OWN = b".wh..wh."
"""Prefix of names that storage drivers once wrote for themselves."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Owner, permissions and time of one file or directory."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory; its metadata comes from `Tree.directories` when everything below it is there."""

    path: Path


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what is at a path, with everything below it if it is a directory."""

    path: Path
    directory: bool


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write the content of the current entry into a new file."""

    path: Path
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    """Make a symbolic link; the target is text that nobody here follows."""

    path: Path
    target: bytes
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class MakeHardlink:
    """Give a file or a symbolic link that is there a second name."""

    path: Path
    target: Path


Operation = MakeDirectory | Remove | WriteFile | MakeSymlink | MakeHardlink


class _Node:
    """Something in the tree. `layer` is the last one that wrote it or, for a directory, anything below it."""

    __slots__ = ("children", "cleared", "kind", "layer", "metadata")

    def __init__(self, kind: Kind, layer: int, metadata: Metadata | None = None) -> None:
        self.kind = kind
        self.layer = layer
        self.metadata = metadata
        self.children: dict[bytes, _Node] | None = {} if kind is Kind.DIRECTORY else None
        self.cleared = -1
        """Layer in which everything of lower layers was removed from this directory."""


def components(name: bytes) -> Path:
    """Return the components of an entry's name below the root. Raises `InvalidRequest` for names that are not taken."""
    parts = tuple(part for part in name.split(b"/") if part not in {b"", b"."})
    if b"\0" in name:
        raise tars.refused(name, "its name has a NUL byte")
    if b".." in parts:
        raise tars.refused(name, 'its name has ".." in it')
    if len(name) > _MAX_PATH or any(len(part) > _MAX_COMPONENT for part in parts):
        raise tars.refused(name, "its name is too long")
    if len(parts) > _MAX_DEPTH:
        raise tars.refused(name, f"it lies more than {_MAX_DEPTH} directories deep")
    return parts


class Tree:
    """What the layers applied so far have made."""

    def __init__(self, limits: Limits) -> None:
        """Start with an empty root directory."""
        self.entries = 0
        """Entries so far, implied directories included."""
        self._limits = limits
        self._name_bytes = 0
        self._layer = 0
        self._root = _Node(Kind.DIRECTORY, 0, Metadata(0o755))

    def next_layer(self) -> None:
        """Say that the entries that follow belong to the next layer."""
        self._layer += 1

    def apply(self, entry: Entry) -> list[Operation]:
        """Return what one entry does. Raises `InvalidRequest` with the entry named, or `TooLarge`."""
        path = components(entry.name)
        self._count(1, 0)
        if any(part.startswith(_ENGINE_OWN) for part in path[:-1]):
            return []
        if any(part.startswith(_WHITEOUT) for part in path[:-1]):
            raise tars.refused(entry.name, "it lies in a whiteout")
        if path and path[-1].startswith(_WHITEOUT):
            return self._hide(entry, path)
        metadata = _metadata(entry)
        if not path:
            if entry.kind is not Kind.DIRECTORY:
                raise tars.refused(entry.name, "the root must be a directory")
            self._root.metadata = metadata
            return []
        operations: list[Operation] = []
        parent = self._parent(entry, path, operations)
        self._place(entry, path, parent, metadata, operations)
        return operations

    def ensure(self, path: Path, kind: Kind, mode: int) -> list[Operation]:
        """Return what it takes so that *something* is at `path`: a directory or an empty file where nothing is.

        Nothing is done where a link or a file is in the way: the image means it so.
        """
        operations: list[Operation] = []
        node = self._root
        for depth, part in enumerate(path, 1):
            if node.children is None:
                break
            last = depth == len(path)
            child = node.children.get(part)
            if child is None:
                metadata = Metadata(mode if last else 0o755)
                child = _Node(kind if last else Kind.DIRECTORY, self._layer, metadata)
                node.children[part] = child
                self._count(1, len(part))
                made = child.children is not None
                operations.append(MakeDirectory(path[:depth]) if made else WriteFile(path, metadata))
            node = child
        return operations

    def directories(self) -> Iterator[tuple[Path, Metadata]]:
        """Yield each directory with its metadata, those below before those above, the root last."""
        yield from _directories((), self._root)

    def _count(self, entries: int, name_bytes: int) -> None:
        self.entries += entries
        self._name_bytes += name_bytes
        if self.entries > self._limits.entries:
            raise errors.TooLarge(
                f"cannot unpack the image: it has more than {self._limits.entries} entries", limit=self._limits.entries
            )
        if self._name_bytes > self._limits.name_bytes:
            raise errors.TooLarge(
                f"cannot unpack the image: its names take more than {self._limits.name_bytes} bytes",
                limit=self._limits.name_bytes,
            )

    def _parent(self, entry: Entry, path: Path, operations: list[Operation]) -> dict[bytes, _Node]:
        """Return the children of the directory that holds `path`, making what is missing of the way to it."""
        node = self._root
        for depth, part in enumerate(path[:-1], 1):
            children = _children(node)
            child = children.get(part)
            if child is not None and child.children is None:
                if child.layer == self._layer:
                    raise tars.refused(entry.name, f'"{tars.shown(b"/".join(path[:depth]))}" is not a directory')
                _remove(path[:depth], children, operations)
                child = None
            if child is None:
                self._count(1, len(part))
                implied = Metadata(0o755, mtime_ns=entry.mtime_ns)
                child = children[part] = _Node(Kind.DIRECTORY, self._layer, implied)
                operations.append(MakeDirectory(path[:depth]))
            child.layer = self._layer
            node = child
        return _children(node)

    def _place(
        self, entry: Entry, path: Path, siblings: dict[bytes, _Node], metadata: Metadata, operations: list[Operation]
    ) -> None:
        """Put the entry's own file, directory or link into its parent."""
        there = siblings.get(path[-1])
        if there is not None and there.kind is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY:
            there.layer, there.metadata = self._layer, metadata
            return
        target: Path = ()
        if entry.kind is Kind.HARDLINK:
            target = components(entry.link)
            if target == path:
                raise tars.refused(entry.name, "it is a hard link to itself")
        if there is not None:
            _remove(path, siblings, operations)
        node = _Node(entry.kind, self._layer, metadata if entry.kind is Kind.DIRECTORY else None)
        if entry.kind is Kind.HARDLINK:
            node.kind = self._link_target(entry, target).kind
        siblings[path[-1]] = node
        self._count(0, len(path[-1]))
        match entry.kind:
            case Kind.DIRECTORY:
                operations.append(MakeDirectory(path))
            case Kind.FILE:
                operations.append(WriteFile(path, metadata))
            case Kind.SYMLINK:
                operations.append(MakeSymlink(path, _symlink_target(entry), metadata))
            case Kind.HARDLINK if node.kind is not Kind.SPECIAL:
                operations.append(MakeHardlink(path, target))
            case _:
                # Devices and FIFOs are never made: the runtime brings the devices a sandbox has.
                pass

    def _link_target(self, entry: Entry, path: Path) -> _Node:
        node = self._find(path)
        if node is None:
            raise tars.refused(entry.name, f'its hard link target "{tars.shown(entry.link)}" does not exist')
        if node.kind is Kind.DIRECTORY:
            raise tars.refused(entry.name, f'its hard link target "{tars.shown(entry.link)}" is a directory')
        return node

    def _find(self, path: Path) -> _Node | None:
        """Return what is at a path, no link followed."""
        node: _Node | None = self._root
        for part in path:
            if node is None or node.children is None:
                return None
            node = node.children.get(part)
        return node

    def _hide(self, entry: Entry, path: Path) -> list[Operation]:
        """Return what a whiteout does: it removes what lower layers brought."""
        operations: list[Operation] = []
        name = path[-1]
        if name == _OPAQUE:
            parent = self._find(path[:-1])
            if parent is not None and parent.children is not None:
                self._clear(path[:-1], parent, operations)
            return operations
        if name.startswith(_ENGINE_OWN):
            return operations
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in {b"", b".", b".."}:
            raise tars.refused(entry.name, "it is a whiteout of nothing")
        parent = self._find(path[:-1])
        there = parent.children.get(hidden) if parent is not None and parent.children is not None else None
        if parent is None or there is None:
            return operations
        at = (*path[:-1], hidden)
        if there.layer < self._layer:
            _remove(at, _children(parent), operations)
        elif there.children is not None:
            self._clear(at, there, operations)
        return operations

    def _clear(self, path: Path, directory: _Node, operations: list[Operation]) -> None:
        """Remove everything below a directory that lower layers brought."""
        if directory.cleared == self._layer:
            return
        directory.cleared = self._layer
        children = _children(directory)
        for name, child in list(children.items()):
            if child.layer < self._layer:
                _remove((*path, name), children, operations)
            elif child.children is not None:
                self._clear((*path, name), child, operations)


def _children(node: _Node) -> dict[bytes, _Node]:
    if node.children is None:
        raise errors.Internal("cannot unpack the image: a file was taken for a directory")
    return node.children


def _remove(path: Path, siblings: dict[bytes, _Node], operations: list[Operation]) -> None:
    """Take a node out of the tree and, if it was made, off the disk."""
    node = siblings.pop(path[-1])
    if node.kind is not Kind.SPECIAL:
        operations.append(Remove(path, directory=node.children is not None))


def _directories(path: Path, node: _Node) -> Iterator[tuple[Path, Metadata]]:
    for name, child in _children(node).items():
        if child.children is not None:
            yield from _directories((*path, name), child)
    if node.metadata is not None:
        yield path, node.metadata


def _symlink_target(entry: Entry) -> bytes:
    if not entry.link or b"\0" in entry.link:
        raise tars.refused(entry.name, "it is a symbolic link to nothing")
    if len(entry.link) > _MAX_PATH:
        raise tars.refused(entry.name, "the target of the symbolic link is too long")
    return entry.link


def _metadata(entry: Entry) -> Metadata:
    if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
        raise tars.refused(entry.name, f"its owner {entry.uid}:{entry.gid} is above {_MAX_ID}, the ids a sandbox has")
    return Metadata(entry.mode, entry.uid, entry.gid, entry.mtime_ns)
