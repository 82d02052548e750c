"""Image references: the text by which a caller names an image, taken apart. Pure: whether the image exists is asked
later.

    host                                  the host's own /usr over a made root
    dir:<path>                            a directory
    oci-layout:<path>[:<tag>|@<digest>]   an OCI image layout directory
    oci-archive:<path>[:<tag>|@<digest>]  the same in a tar file
    docker-archive:<path>[:<name>[:<tag>]]  what `docker save` writes

Paths are absolute and have no colon where a tag may follow.
"""

from __future__ import annotations

import enum
import posixpath
import re
from dataclasses import dataclass

from traforo.domain import errors

MAX_LENGTH = 4096
"""Most characters of a reference."""

_SHOWN = 200
"""Most characters of a reference in a message."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)
_OVERLAY_SYNTAX = frozenset(':,\\"')
"""Characters with a meaning in mount options; a directory that is mounted has none of them in its path."""


class Kind(enum.StrEnum):
    """Where an image comes from."""

    HOST = "host"
    DIRECTORY = "dir"
    OCI_LAYOUT = "oci-layout"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


@dataclass(frozen=True, slots=True)
class Reference:
    """One image as a caller named it."""

    text: str
    """The reference as it was written."""
    kind: Kind
    path: str = ""
    """Absolute and normal: no empty, `.` or `..` component; empty for `host`."""
    name: str = ""
    """Tag or name within a layout or an archive; empty if none was given."""
    digest: str = ""
    """Digest of a manifest (`sha256:…`); empty if none was given."""


def parse(text: str) -> Reference:
    """Take a reference apart.

    Raises `NotFound` (kind `image`) for text that names none of the known sources and `InvalidRequest` (field `image`)
    for one that names a source and contradicts its form.
    """
    if not text or len(text) > MAX_LENGTH or not text.isprintable():
        raise _malformed(text, f"it must be 1 to {MAX_LENGTH} printable characters")
    if text == Kind.HOST:
        return Reference(text=text, kind=Kind.HOST)
    scheme, colon, rest = text.partition(":")
    if not colon or scheme == Kind.HOST or scheme not in set(Kind):
        raise errors.NotFound(
            f"cannot find image '{_short(text)}'",
            kind="image",
            id=text,
            hint=f"an image is 'host' or begins with {', '.join(f'{kind}:' for kind in Kind if kind is not Kind.HOST)}",
        )
    kind = Kind(scheme)
    if kind is Kind.DIRECTORY:
        return Reference(text=text, kind=kind, path=_path(text, rest))
    if kind is not Kind.DOCKER_ARCHIVE and "@" in rest:
        path, _, digest = rest.rpartition("@")
        if not _DIGEST.fullmatch(digest):
            raise _malformed(text, "what follows '@' is not a digest")
        return Reference(text=text, kind=kind, path=_path(text, path), digest=digest)
    path, colon, name = rest.partition(":")
    if colon and not _NAME.fullmatch(name):
        raise _malformed(text, "what follows the path is not a name")
    return Reference(text=text, kind=kind, path=_path(text, path), name=name)


def _path(text: str, path: str) -> str:
    if not path.startswith("/"):
        raise _malformed(text, "its path must be absolute")
    if _OVERLAY_SYNTAX & set(path):
        raise _malformed(text, "its path has a colon, a comma, a quote or a backslash")
    if len(path.encode(errors="surrogatepass")) >= MAX_LENGTH:
        raise _malformed(text, "its path is too long")
    # POSIX lets two leading slashes mean something else; Linux does not.
    return "/" + posixpath.normpath(path).lstrip("/")


def _malformed(text: str, why: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"cannot use image '{_short(text)}': {why}", field="image")


def _short(text: str) -> str:
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:_SHOWN])
    return shown + ("…" if len(text) > _SHOWN else "")
