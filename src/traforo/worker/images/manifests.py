"""The JSON documents of an image (OCI index, manifest, config; the manifest of `docker save`), and choices among them.

Pure: bytes in, checked records out. Unknown members are ignored, as both specifications ask; wrong ones are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from traforo.domain import errors

MAX_DESCRIPTORS = 10_000
"""Most entries of one index."""
_MAX_ENV_BYTES = 64 * 1024
_MAX_PATH = 4095
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.$-]{0,63}(:[A-Za-z0-9_.][A-Za-z0-9_.$-]{0,63})?", re.ASCII)
_TAG = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "",
}
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Record = TypeVar("Record", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in the words of the OCI specification; the system is always Linux here."""

    architecture: str
    variant: str = ""


class PlatformRecord(msgspec.Struct, frozen=True):
    """`platform` of a descriptor."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Points at a blob by digest and size."""

    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: PlatformRecord | None = None


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """List of manifests."""

    manifests: list[Descriptor]
    schema_version: int = 2


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: a config and its layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2


class DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of a `docker save` archive: names of members."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class RootfsRecord(msgspec.Struct, frozen=True):
    """Digests of the layers without compression."""

    type: str = ""
    diff_ids: list[str] = []


class Process(msgspec.Struct, frozen=True, rename="pascal"):
    """What a command in the image starts with, as far as a sandbox uses it."""

    env: list[str] | None = None
    user: str = ""
    working_dir: str = ""


class Config(msgspec.Struct, frozen=True):
    """The image's config."""

    rootfs: RootfsRecord
    architecture: str = ""
    os: str = ""
    variant: str = ""
    config: Process | None = None


def invalid(why: str) -> errors.InvalidRequest:
    """Return the error for an image that contradicts its format."""
    return errors.InvalidRequest(f"cannot read the image: {why}", field="image")


def decode(data: bytes, kind: type[Record], what: str) -> Record:
    """Read one document. Raises `InvalidRequest` with `what` named."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"its {what} is malformed") from error


def decode_docker(data: bytes) -> list[DockerImage]:
    """Read `manifest.json` of a `docker save` archive."""
    try:
        return msgspec.json.decode(data, type=list[DockerImage])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("its manifest.json is malformed") from error


def split_digest(digest: str) -> tuple[str, str]:
    """Return algorithm and hex digits of a digest. Raises `InvalidRequest` for those that cannot be verified."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise invalid("a digest is neither sha256 nor sha512")
    return match[1] or match[3], match[2] or match[4]


def platform_of(machine: str) -> Platform:
    """Return the platform of a machine as `uname -m` names it."""
    return Platform(*_ARCHITECTURES.get(machine, (machine, "")))


def is_index(descriptor: Descriptor) -> bool:
    """Tell whether a descriptor points at a further index."""
    return descriptor.media_type in _INDEXES


def named(descriptors: Sequence[Descriptor], *, name: str, digest: str) -> list[Descriptor]:
    """Return the manifests of a layout's own index that a reference means.

    Without a name all of them, or those that have the most usual one, `latest`. Raises `NotFound` if there are none and
    `InvalidRequest` where a name is needed.
    """
    if len(descriptors) > MAX_DESCRIPTORS:
        raise invalid(f"its index has more than {MAX_DESCRIPTORS} entries")
    if digest:
        found = [one for one in descriptors if one.digest == digest]
    elif name:
        found = [one for one in descriptors if name in _names(one)]
    else:
        tags = {tag for one in descriptors for tag in _names(one)}
        latest = [one for one in descriptors if "latest" in _names(one)]
        if len(tags) > 1 and not latest:
            raise invalid(f"it holds several images, name one of: {_listed(tags)}")
        found = latest if len(tags) > 1 else list(descriptors)
    if not found:
        raise errors.NotFound(f"cannot find image '{name or digest}' in it", kind="image", id=name or digest)
    return found


def for_platform(descriptors: Sequence[Descriptor], platform: Platform) -> Descriptor:
    """Return the manifest (or the one further index) that fits a platform best.

    Raises `InvalidRequest` with the platforms there are.
    """
    candidates = [one for one in descriptors if _rank(one.platform, platform) is not None]
    if not candidates:
        there = {f"{one.platform.os}/{one.platform.architecture}" for one in descriptors if one.platform}
        raise invalid(f"it has no variant for linux/{platform.architecture}, only {_listed(there)}")
    return min(candidates, key=lambda one: _rank(one.platform, platform) or 0)


def _rank(offered: PlatformRecord | None, wanted: Platform) -> int | None:
    """Return how well a platform fits, 0 best; None if programs for it do not run here."""
    if offered is None or (not offered.os and not offered.architecture):
        return 1
    if offered.os not in {"linux", ""} or offered.architecture != wanted.architecture:
        return None
    if offered.variant in {wanted.variant, ""} or wanted.architecture == "arm64":
        return 0
    if wanted.architecture == "arm":
        # v6 programs run on v7, never the reverse.
        return None if offered.variant > wanted.variant else 1
    # amd64 levels: v2 and above need instructions that this machine may not have.
    return 2


def check_runs(config: Config, platform: Platform) -> None:
    """Raise `InvalidRequest` if an image is for another machine than this one."""
    offered = PlatformRecord(architecture=config.architecture, os=config.os, variant=config.variant)
    if _rank(offered, platform) is None:
        there = _quoted(f"{config.os}/{config.architecture}")
        raise invalid(f"it is for {there}, this machine is linux/{platform.architecture}")


def check_is_image(manifest: Manifest) -> None:
    """Raise `InvalidRequest` if a manifest describes something else than a container image."""
    if manifest.config.media_type not in _CONFIGS:
        raise invalid(f"it is not a container image but {_quoted(manifest.config.media_type)}")


def docker_image(images: Sequence[DockerImage], name: str) -> DockerImage:
    """Return the image of a `docker save` archive that a name means; without a name the only one.

    Raises `NotFound`, or `InvalidRequest` where a name is needed.
    """
    if not name:
        if len(images) != 1:
            tags = {tag for image in images for tag in image.repo_tags or ()}
            raise invalid(f"it holds {len(images)} images, name one of: {_listed(tags)}")
        return images[0]
    wanted = {name, f"{name}:latest"}
    for image in images:
        if wanted & set(image.repo_tags or ()):
            return image
    raise errors.NotFound(f"cannot find image '{name}' in it", kind="image", id=name)


def environment(process: Process) -> Mapping[str, str]:
    """Return the environment of an image, with a PATH. Raises `InvalidRequest` for what cannot be one."""
    lines = process.env or []
    if sum(len(line.encode()) + 1 for line in lines) > _MAX_ENV_BYTES:
        raise invalid(f"its environment is larger than {_MAX_ENV_BYTES} bytes")
    env = {"PATH": DEFAULT_PATH}
    for line in lines:
        key, equals, value = line.partition("=")
        if not key or not equals or "\0" in line:
            raise invalid("its environment has a line that is not NAME=value")
        env[key] = value
    return env


def user(process: Process) -> str:
    """Return the default user of an image: name or number, perhaps `:group`. Raises `InvalidRequest`."""
    if process.user and not _USER.fullmatch(process.user):
        raise invalid("its user is not a name or a number")
    return process.user or "root"


def working_directory(process: Process) -> str | None:
    """Return the working directory of an image, absolute; None if it has none. Raises `InvalidRequest`."""
    path = process.working_dir
    if not path:
        return None
    if len(path.encode()) > _MAX_PATH or "\0" in path:
        raise invalid("its working directory is too long or has a NUL in it")
    return path if path.startswith("/") else f"/{path}"


def _names(descriptor: Descriptor) -> set[str]:
    annotations = descriptor.annotations or {}
    return {annotations[key] for key in (_TAG, _CONTAINERD_NAME) if key in annotations}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_quoted, sorted(names)[:10])) or "nothing (none has a name)"


def _quoted(text: str) -> str:
    """Return text of an archive as it can stand in a message."""
    short = text[:100]
    return f"'{short}'" if short.isprintable() else ascii(short)
