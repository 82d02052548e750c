"""Descriptors of files that came out of a sandbox: checked before use, then read and written.

A sandbox chooses what a path leads to. What is opened there with its user's rights is read and written here with those
of the worker, so a file of the kernel (/proc, /sys, cgroups) would let a sandbox act with rights that are not its own:
nothing but regular files of ordinary file systems is touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as stats
from collections.abc import Iterator
from contextlib import contextmanager

from traforo.domain import errors

INLINE_BYTES = 64 * 1024
"""What is read or written on the event loop: up to this size a thread would cost more than the work."""
BLOCK_BYTES = 256 * 1024
"""What is read or written at once in a thread."""
COPY_BYTES = 4 * 1024 * 1024
"""What is copied at once in a thread."""

KERNEL_FILE_SYSTEMS = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0xCAFE4A11: "bpf",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0xF97CFF8C: "selinuxfs",
    0x43415D53: "smackfs",
    0x5A3C69F0: "apparmorfs",
    0x42494E4D: "binfmt_misc",
    0x6E736673: "nsfs",
    0x1CD1: "devpts",
    0x19800202: "mqueue",
    0x07655821: "resctrl",
    0xABBA1974: "xenfs",
}
"""Magic numbers (linux/magic.h) of file systems whose files are calls into the kernel."""

_STATFS_BYTES = 256  # struct statfs has 120 on 64-bit machines
_NO_RANGES = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""What file systems say that cannot copy among themselves."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_libc = ctypes.CDLL(None, use_errno=True)


def check(fd: int, path: str) -> int:
    """Return the size of an open regular file. Raises `InvalidRequest` for anything else, without closing it."""
    found = os.fstat(fd)
    if not stats.S_ISREG(found.st_mode):
        raise errors.InvalidRequest(f"cannot open {path[:200]!r}: not a regular file", field="path")
    name = KERNEL_FILE_SYSTEMS.get(file_system(fd))
    if name is not None:
        raise errors.InvalidRequest(
            f"cannot open {path[:200]!r}: a file of the kernel ({name})",
            field="path",
            hint="run a command to read or write it",
        )
    return found.st_size


def file_system(fd: int) -> int:
    """Return the magic number of the file system that an open file is on."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(fd, answer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF


def write(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(fd: int, limit: int) -> bytes:
    """Read until the end or up to `limit` bytes. Raises OSError."""
    pieces: list[bytes] = []
    while limit > 0 and (piece := os.read(fd, min(limit, BLOCK_BYTES))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def copy(source: int, to: int, limit: int) -> int:
    """Copy up to `limit` bytes from where both files are, within the kernel; 0 at the end. Raises OSError."""
    try:
        return os.copy_file_range(source, to, limit)
    except OSError as error:
        if error.errno not in _NO_RANGES:
            raise
    data = read(source, min(limit, COPY_BYTES))
    write(to, data)
    return len(data)


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what the kernel says of a file in the words of the domain."""
    try:
        yield
    except OSError as error:
        text = f"cannot use {path[:200]!r}: {os.strerror(error.errno or 0).lower()}"
        if error.errno in _FULL:
            raise errors.DiskFull(text) from error
        raise errors.InvalidRequest(text, field="path", errno_name=errno.errorcode.get(error.errno or 0, "")) from error
