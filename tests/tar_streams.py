"""Writes tar streams block by block, wrong ones included: what a library would refuse to write is what tests need."""

from __future__ import annotations

from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)


def octal(value: int, width: int) -> bytes:
    """Return a number as a header holds it, in binary where octal digits do not reach."""
    digits = b"%0*o" % (width - 1, value)
    return digits + b"\0" if len(digits) < width else b"\x80" + value.to_bytes(width - 1, "big")


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\00000",
    prefix: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """Return one header block; `checksum` replaces the right one."""
    assert len(name) <= 100, "needs an extension header"
    assert len(link) <= 100, "needs an extension header"
    before = b"".join(
        [
            name.ljust(100, b"\0"),
            octal(mode, 8),
            octal(uid, 8),
            octal(gid, 8),
            octal(size, 12),
            octal(mtime, 12),
        ]
    )
    after = b"".join(
        [kind, link.ljust(100, b"\0"), magic, bytes(64), octal(0, 8), octal(0, 8), prefix.ljust(155, b"\0")]
    )
    after = after.ljust(BLOCK - len(before) - 8, b"\0")
    total = sum(before) + sum(after) + 8 * 0x20 if checksum is None else checksum
    return before + b"%06o\0 " % total + after


def padded(data: bytes) -> bytes:
    """Return content filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0) -> bytes:
    """Return a regular file."""
    return header(name, size=len(data), mode=mode, uid=uid, gid=gid, mtime=mtime) + padded(data)


def directory(name: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 0) -> bytes:
    """Return a directory."""
    return header(name, b"5", mode=mode, uid=uid, gid=gid, mtime=mtime)


def symlink(name: bytes, target: bytes) -> bytes:
    """Return a symbolic link."""
    return header(name, b"2", mode=0o777, link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    """Return a hard link."""
    return header(name, b"1", link=target)


def pax(records: Mapping[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extension header with these records."""
    data = b"".join(pax_record(key, value) for key, value in records.items())
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one record, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """Return GNU's header for a long name (`L`) or a long link target (`K`)."""
    return header(b"././@LongLink", kind, size=len(name) + 1) + padded(name + b"\0")


def stream(*entries: bytes) -> bytes:
    """Return a whole stream."""
    return b"".join(entries) + END
