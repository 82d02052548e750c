"""Turns a parsed reference into something a runtime can mount. Everything here blocks and runs in a thread of the
store.

Two questions, apart because the first is asked often and the second costs time: `identity`, cheap facts that change
when the source does, and `prepare`, which makes the image unless it is on the shelf.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors
from traforo.worker.images import budgets, directories, flattenings, hosts, layouts, manifests, paths
from traforo.worker.images.limits import Limits
from traforo.worker.images.preparations import Record, Shelf
from traforo.worker.images.references import Kind, Reference
from traforo.worker.runtimes.contract import Rootfs

Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that can be mounted."""

    rootfs: Rootfs
    identity: Identity
    """What `Workshop.identity` answers for as long as the source is the same."""
    key: str | None
    """Its name on the shelf; None for what is mounted where it lies."""


class Workshop:
    """Prepares images. Thread-safe; one image is prepared by one thread at a time."""

    def __init__(
        self, state_dir: Path, roots: paths.Roots, limits: Limits, *, privileged: bool, machine: str, host_root: Path
    ) -> None:
        """Keep images below `state_dir`. `privileged` sets owners in them; `machine` is as `uname -m` says it."""
        self.shelf = Shelf(state_dir / "images")
        self.stop = threading.Event()
        """Set it to make every preparation fail soon."""
        self._state_dir = state_dir
        self._roots = roots
        self._limits = limits
        self._privileged = privileged
        self._platform = manifests.platform_of(machine)
        self._host_root = host_root
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def identity(self, reference: Reference) -> Identity:
        """Return facts about the source of an image. Raises `NotFound` or `InvalidRequest` if it cannot be used."""
        with _translated(reference):
            match reference.kind:
                case Kind.HOST:
                    return (self._find_host()[1],)
                case Kind.DIRECTORY:
                    return directories.resolve(reference, self._roots, self._state_dir)[1]
                case Kind.OCI_LAYOUT:
                    return self._file_identity(f"{reference.path}/index.json")
                case Kind.OCI_ARCHIVE | Kind.DOCKER_ARCHIVE:
                    return self._file_identity(reference.path)

    def holds(self, reference: Reference, prepared: Prepared) -> bool:
        """Tell whether what was prepared is still what a reference means. Raises as `identity` does."""
        there = prepared.key is None or self.shelf.find(prepared.key) is not None
        return there and self.identity(reference) == prepared.identity

    def prepare(self, reference: Reference) -> Prepared:
        """Return an image, made if need be.

        Raises `NotFound`, `InvalidRequest`, `TooLarge`, `NoCapacity` (the host's disk), `WorkerUnavailable` (stopping).
        """
        identity: Identity
        with _translated(reference):
            match reference.kind:
                case Kind.HOST:
                    return self._host(reference)
                case Kind.DIRECTORY:
                    rootfs, identity = directories.resolve(reference, self._roots, self._state_dir)
                    return Prepared(rootfs, identity, None)
                case Kind.OCI_LAYOUT:
                    # Taken first: a source that changes meanwhile is found changed at the next look.
                    identity = self._file_identity(f"{reference.path}/index.json")
                    directory, _ = paths.check_directory(reference.path, self._roots)
                    return self._flattened(reference, identity, layouts.Directory(directory, self._roots))
                case Kind.OCI_ARCHIVE | Kind.DOCKER_ARCHIVE:
                    identity = self._file_identity(reference.path)
                    with (
                        self.shelf.scratch() as scratch,
                        layouts.archive(reference.path, self._roots, self._budget(), scratch) as parts,
                    ):
                        return self._flattened(reference, identity, parts)

    def _find_host(self) -> tuple[hosts.Host, str]:
        host = hosts.find(self._host_root)
        return host, host.fingerprint(privileged=self._privileged)

    def _host(self, reference: Reference) -> Prepared:
        host, fingerprint = self._find_host()

        def build(directory: Path) -> Record:
            count, entries, skipped = hosts.build(host, directory, privileged=self._privileged)
            return Record(
                reference=reference.text,
                kind=reference.kind,
                bytes=count,
                entries=entries,
                env=dict(hosts.ENV),
                user=hosts.default_user(privileged=self._privileged),
                lowers=[(lower.source, lower.target) for lower in host.lowers()],
                skipped=list(skipped),
            )

        return self._shelved(reference, (fingerprint,), f"host-{fingerprint}", build)

    def _flattened(self, reference: Reference, identity: Identity, parts: layouts.Parts) -> Prepared:
        image = flattenings.read(parts, reference, self._platform, self._limits)

        def build(directory: Path) -> Record:
            root = directory / "rootfs"
            made = flattenings.flatten(image, parts, root, self._budget(), privileged=self._privileged)
            return Record(
                reference=reference.text,
                kind=reference.kind,
                bytes=made.bytes,
                entries=made.entries,
                env=dict(image.env),
                user=made.user,
                cwd=image.cwd,
            )

        return self._shelved(reference, identity, image.key, build)

    def _shelved(self, reference: Reference, identity: Identity, key: str, build: Callable[[Path], Record]) -> Prepared:
        """Return what the shelf has under a key, after putting it there if it had nothing."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            record = self.shelf.find(key) or self.shelf.make(key, build)
        return Prepared(self.shelf.rootfs(key, record, reference.text), identity, key)

    def _file_identity(self, path: str) -> Identity:
        descriptor = paths.open_file(path, self._roots)
        try:
            return paths.identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _budget(self) -> budgets.Budget:
        return budgets.Budget(
            self._limits, stop=self.stop, free_bytes=budgets.free_bytes_of(os.fspath(self.shelf.directory))
        )


@contextlib.contextmanager
def _translated(reference: Reference) -> Iterator[None]:
    """Say in the words of the domain what the host's file system refused."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise errors.NoCapacity(
                f"cannot prepare image '{reference.text}': the disk of the host is full", resource="disk_mib"
            ) from error
        raise errors.Internal(f"cannot prepare image '{reference.text}': {error}") from error
