"""The tar format, both ways: headers of entries made and read, and names that are safe to follow. Pure.

Written is what POSIX calls pax: names of any bytes, any size, times to the fraction of a second. Read is that, ustar,
and the long names of GNU tar. Sparse files, and types that no tool writes for files, are refused and not guessed at.
"""

from __future__ import annotations

import enum
import posixpath
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.files import paths
from traforo.worker.runtimes import contract

BLOCK = 512
END = bytes(2 * BLOCK)
"""Ends an archive."""
MAX_EXTENSION_BYTES = 64 * 1024
"""Most bytes of one extension header; a path has 4,095."""
MAX_EXTENSIONS = 16
"""Most extension headers in front of one entry; writers use at most three."""
MAX_NAME_BYTES = 255
"""Most bytes of one part of a path."""
MAX_DEPTH = 128
"""Most parts of a path."""
MAX_SIZE = 1 << 50
"""Most bytes of one file."""

_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_NUMBER = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"-?[0-9]{1,11}(\.[0-9]{1,18})?")
_GNU_MAGIC = b"ustar  \0"
_LAST_ID = 0xFFFF_FFFE
_LAST_SECOND = 1 << 36


class Kind(enum.Enum):
    """What an entry is."""

    FILE = tarfile.REGTYPE
    HARDLINK = tarfile.LNKTYPE
    SYMLINK = tarfile.SYMTYPE
    DIRECTORY = tarfile.DIRTYPE


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.DIRTYPE: Kind.DIRECTORY,
}
_SPECIAL = {tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry. Bytes of names that are not UTF-8 are surrogate escapes."""

    name: str
    """Relative, without a slash at its end."""
    kind: Kind
    size: int = 0
    """Bytes of content; 0 for what is not a file."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    modified_at: float = 0.0
    """Unix seconds."""
    link: str = ""
    """Target of a link."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A header that says something of the entry behind it. Its content follows."""

    kind: bytes
    size: int


# ------------------------------------------------------------------------------------------------------- writing


def header(member: Member) -> bytes:
    """Return what stands before the content of an entry."""
    found = tarfile.TarInfo(member.name)
    found.type = member.kind.value
    found.size = member.size
    found.mode = member.mode
    found.uid, found.gid = member.uid, member.gid
    moment = min(max(member.modified_at, -_LAST_SECOND), _LAST_SECOND)
    found.mtime = int(moment // 1)
    if moment != found.mtime:
        found.pax_headers = {"mtime": f"{moment:.7f}"}
    found.linkname = member.link
    return found.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what stands behind the content of an entry."""
    return bytes(-size % BLOCK)


# ------------------------------------------------------------------------------------------------------- reading


def parse(block: bytes, extensions: Mapping[str, str]) -> Member | Extension:
    """Read a header; `extensions` is what was said before it. Raises `InvalidRequest`."""
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise broken(f"a header of it: {error}") from error
    if not 0 <= found.size <= MAX_SIZE:
        raise broken("a size in it is impossible")
    if found.type in b"xgLK":
        return Extension(found.type, found.size)
    if block[257:265] == _GNU_MAGIC:  # what would be a prefix of the name are times there
        found.name = block[:100].partition(b"\0")[0].decode(errors="surrogateescape").rstrip("/")
    return _member(found, extensions)


def said(kind: bytes, content: bytes) -> dict[str, str]:
    """Read the content of an extension header. Raises `InvalidRequest`."""
    if kind == b"g":  # defaults for everything behind it, which tools for archives of files ignore
        return {}
    if kind == b"x":
        return _records(content)
    text = content.partition(b"\0")[0].decode(errors="surrogateescape")
    return {"path" if kind == b"L" else "linkpath": text}


def broken(why: str) -> errors.InvalidRequest:
    """Return the error for what is no archive."""
    return errors.InvalidRequest(f"cannot read the archive: {why}"[:300], field="body")


def refused(name: str, why: str) -> errors.InvalidRequest:
    """Return the error for an entry that is not taken."""
    shown = paths.shown(name)[:200]
    return errors.InvalidRequest(f"cannot extract {shown!r}: {why}", field="body", entry=shown)


def safe(name: str) -> str:
    """Return the name of an entry as a path below the directory of extraction; empty for that directory itself.

    Raises `InvalidRequest` for one that leads elsewhere, `TooLarge`.
    """
    if name.startswith("/"):
        raise refused(name, "its name is absolute")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise refused(name, "'..' in its name")
    if "\0" in name:
        raise refused(name, "a NUL character in its name")
    if len(parts) > MAX_DEPTH:
        raise errors.TooLarge(f"cannot extract: more than {MAX_DEPTH} directories in one another", limit=MAX_DEPTH)
    if any(len(part.encode(errors="surrogateescape")) > MAX_NAME_BYTES for part in parts):
        raise errors.TooLarge(f"cannot extract: a name of more than {MAX_NAME_BYTES} bytes", limit=MAX_NAME_BYTES)
    return "/".join(parts)


def check_link(name: str, target: str, *, inside: bool = True) -> None:
    """Refuse a symbolic link that can be none, and with `inside` one that leads out. `name` is a safe one.

    `..` may stand at its beginning alone. Each step up is then from a directory that is known to be one, so that links
    cannot lead out together that do not do so alone.
    """
    if not target or "\0" in target:
        raise refused(name, "it is a link to nothing")
    if len(target.encode(errors="surrogateescape")) > contract.MAX_PATH_BYTES:
        raise errors.TooLarge("cannot extract: the target of a link is too long", limit=contract.MAX_PATH_BYTES)
    if not inside:
        return
    if target.startswith("/"):
        raise refused(name, "it is a link to an absolute path")
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if ".." in parts[ups:]:
        raise refused(name, "it is a link with '..' behind a name")
    if ups > name.count("/"):
        raise refused(name, "it is a link that leads out")


def _member(found: tarfile.TarInfo, extensions: Mapping[str, str]) -> Member:
    name = extensions.get("path", found.name)
    if found.type in _SPECIAL:
        raise refused(name, "it is a device or a FIFO")
    if found.type not in _KINDS or any(key.startswith("GNU.sparse") for key in extensions):
        raise refused(name, "it is of a kind that is not taken, as sparse files are")
    kind = _KINDS[found.type]
    if kind is Kind.FILE and found.type == tarfile.AREGTYPE and name.endswith("/"):
        kind = Kind.DIRECTORY
    return Member(
        name=name,
        kind=kind,
        size=_size(extensions, found.size) if kind is Kind.FILE else 0,
        mode=found.mode & 0o7777,
        uid=_id(extensions.get("uid"), found.uid),
        gid=_id(extensions.get("gid"), found.gid),
        modified_at=_time(extensions.get("mtime"), found.mtime),
        link=extensions.get("linkpath", found.linkname),
    )


def _size(extensions: Mapping[str, str], size: int) -> int:
    text = extensions.get("size")
    if text is None:
        return size
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        raise broken("a size in it is impossible")
    return int(text)


def _id(text: str | None, number: int) -> int:
    if text is not None and _NUMBER.fullmatch(text):
        number = int(text)
    if not 0 <= number <= _LAST_ID:
        raise broken("an id in it is impossible")
    return number


def _time(text: str | None, seconds: float) -> float:
    if text is not None and _TIME.fullmatch(text):
        seconds = float(text)
    return float(min(max(seconds, -_LAST_SECOND), _LAST_SECOND))


def _records(content: bytes) -> dict[str, str]:
    """Read the records of a pax header, which are lines: `<length> <key>=<value>`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content) and content[at]:
        match = _RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(content) or content[end - 1 : end] != b"\n":
            raise broken("a malformed record in an extension header")
        key, equals, value = content[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise broken("a malformed record in an extension header")
        found[key.decode(errors="replace")] = value.decode(errors="surrogateescape")
        at = end
    return found


def place(base: str, name: str) -> str:
    """Return where an entry with a safe name goes."""
    return posixpath.join(base, name) if name else base
