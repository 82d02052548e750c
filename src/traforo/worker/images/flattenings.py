"""Makes one directory out of an image of layers, so that a cold start mounts one layer however many the image has.

Nothing is believed: every blob is held against its digest and size, and every layer against the digest of its unpacked
form that the config names. The digest of the config therefore names the content of the whole tree.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from traforo.worker.images import accounts, layouts, manifests, readers, trees, unpackers
from traforo.worker.images.budgets import Budget
from traforo.worker.images.limits import Limits
from traforo.worker.images.references import Kind, Reference
from traforo.worker.images.tars import Kind as EntryKind

_MOUNT_POINTS: Mapping[bytes, int] = {
    b"proc": 0o555,
    b"sys": 0o555,
    b"dev": 0o755,
    b"tmp": 0o1777,
    b"run": 0o755,
}
_WRITTEN_AT_START = (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")
"""Files a runtime writes or mounts over when a sandbox starts."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image."""

    part: str
    """Name of the part that holds it."""
    diff_id: str
    """Digest of its unpacked form."""
    digest: str = ""
    """Digest of the part as it is; empty where the format does not tell."""
    size: int = -1
    """Bytes of the part as it is; -1 where the format does not tell."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image consists of, read and not yet unpacked."""

    key: str
    """sha256 of the config, hex: names the content of the image."""
    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    user: str
    cwd: str | None


@dataclass(frozen=True, slots=True)
class Flattened:
    """What was made."""

    bytes: int
    entries: int
    user: str


def read(parts: layouts.Parts, reference: Reference, platform: manifests.Platform, limits: Limits) -> Image:
    """Return the image that a reference means. Raises `NotFound`, `InvalidRequest` or `TooLarge`."""
    if reference.kind is Kind.DOCKER_ARCHIVE:
        return _read_docker(parts, reference, platform, limits)
    return _read_oci(parts, reference, platform, limits)


def flatten(image: Image, parts: layouts.Parts, root: Path, budget: Budget, *, privileged: bool) -> Flattened:
    """Unpack every layer into the empty directory `root`.

    Raises `InvalidRequest` for hostile or damaged layers, `TooLarge`, or OSError.
    """
    tree = trees.Tree(budget.limits)
    with unpackers.Unpacker(root, privileged=privileged) as unpacker:
        for layer in image.layers:
            _apply(layer, parts, tree, unpacker, budget)
        for operation in _complete(tree, image.cwd):
            unpacker.perform(operation)
        for path, metadata in tree.directories():
            unpacker.finish_directory(path, metadata)
        return Flattened(bytes=unpacker.bytes, entries=tree.entries, user=accounts.resolve(image.user, root))


def _apply(layer: Layer, parts: layouts.Parts, tree: trees.Tree, unpacker: unpackers.Unpacker, budget: Budget) -> None:
    algorithm, expected = manifests.split_digest(layer.diff_id)
    with parts.part(layer.part) as region:
        if layer.size not in {-1, region.size}:
            raise manifests.invalid(f"layer '{layer.part}' has {region.size} bytes, not {layer.size}")
        packed = readers.Hashed(region, _algorithm(layer.digest))
        unpacked = readers.Hashed(readers.unpacked(packed, budget), algorithm)
        unpackers.unpack_layer(readers.Buffered(unpacked), tree, unpacker)
        readers.drain(packed)
    if layer.digest and packed.hexdigest() != manifests.split_digest(layer.digest)[1]:
        raise manifests.invalid(f"layer '{layer.part}' does not have its digest")
    if unpacked.hexdigest() != expected:
        raise manifests.invalid(f"layer '{layer.part}' unpacked does not have the digest that the config names")


def _complete(tree: trees.Tree, cwd: str | None) -> list[trees.Operation]:
    """Return what a sandbox needs and the image may not have: mount points and the working directory."""
    tree.next_layer()
    operations = []
    for name, mode in _MOUNT_POINTS.items():
        operations += tree.ensure((name,), EntryKind.DIRECTORY, mode)
    for path in _WRITTEN_AT_START:
        operations += tree.ensure(trees.components(path), EntryKind.FILE, 0o644)
    if cwd is not None:
        normal = posixpath.normpath(cwd).encode()
        operations += tree.ensure(trees.components(normal), EntryKind.DIRECTORY, 0o755)
    return operations


def _read_oci(parts: layouts.Parts, reference: Reference, platform: manifests.Platform, limits: Limits) -> Image:
    index = manifests.decode(parts.document("index.json", limits.document_bytes), manifests.Index, "index.json")
    descriptors = manifests.named(index.manifests, name=reference.name, digest=reference.digest)
    chosen = manifests.for_platform(descriptors, platform)
    for _ in range(3):
        if not manifests.is_index(chosen):
            break
        nested = manifests.decode(_blob(parts, chosen, limits), manifests.Index, "index")
        chosen = manifests.for_platform(nested.manifests, platform)
    else:
        raise manifests.invalid("its indexes are nested too deep")
    manifest = manifests.decode(_blob(parts, chosen, limits), manifests.Manifest, "manifest")
    manifests.check_is_image(manifest)
    data = _blob(parts, manifest.config, limits)
    layers = [Layer(_blob_name(one.digest), "", one.digest, one.size) for one in manifest.layers]
    return _image(data, layers, platform, limits)


def _read_docker(parts: layouts.Parts, reference: Reference, platform: manifests.Platform, limits: Limits) -> Image:
    images = manifests.decode_docker(parts.document("manifest.json", limits.document_bytes))
    chosen = manifests.docker_image(images, reference.name)
    data = parts.document(chosen.config, limits.document_bytes)
    return _image(data, [Layer(part, "") for part in chosen.layers], platform, limits)


def _image(data: bytes, layers: list[Layer], platform: manifests.Platform, limits: Limits) -> Image:
    config = manifests.decode(data, manifests.Config, "config")
    manifests.check_runs(config, platform)
    if len(layers) != len(config.rootfs.diff_ids):
        raise manifests.invalid(f"it has {len(layers)} layers and digests for {len(config.rootfs.diff_ids)}")
    if not 0 < len(layers) <= limits.layers:
        raise manifests.invalid(f"it has {len(layers)} layers, which is not between 1 and {limits.layers}")
    process = config.config or manifests.Process()
    return Image(
        key=hashlib.sha256(data).hexdigest(),
        layers=tuple(
            Layer(layer.part, diff_id, layer.digest, layer.size)
            for layer, diff_id in zip(layers, config.rootfs.diff_ids, strict=True)
        ),
        env=manifests.environment(process),
        user=manifests.user(process),
        cwd=manifests.working_directory(process),
    )


def _blob(parts: layouts.Parts, descriptor: manifests.Descriptor, limits: Limits) -> bytes:
    """Return a document that a descriptor points at, digest and size verified."""
    algorithm, expected = manifests.split_digest(descriptor.digest)
    name = _blob_name(descriptor.digest)
    data = parts.document(name, limits.document_bytes)
    if len(data) != descriptor.size or hashlib.new(algorithm, data).hexdigest() != expected:
        raise manifests.invalid(f"'{name}' does not have its digest and size")
    return data


def _blob_name(digest: str) -> str:
    return "blobs/" + "/".join(manifests.split_digest(digest))


def _algorithm(digest: str) -> str:
    return manifests.split_digest(digest)[0] if digest else "sha256"
