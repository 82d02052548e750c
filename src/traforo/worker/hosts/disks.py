"""Disk images for sandboxes that want their writable layer on disk: a sparse file with a file system of its own size.

The loop device frees itself when its last mount goes (LO_FLAGS_AUTOCLEAR), so a dead sandbox leaves only
the image file, which its worker removes.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_TRIES = 16
MINIMUM_MIB = 8


class _LoopInfo(ctypes.Structure):
    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_uint8 * 64),
        ("lo_crypt_name", ctypes.c_uint8 * 64),
        ("lo_encrypt_key", ctypes.c_uint8 * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class _LoopConfig(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo),
        ("reserved", ctypes.c_uint64 * 8),
    )


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk ready to be mounted. `descriptor` keeps the device until it is; then it is closed."""

    image: Path
    device: str
    descriptor: int

    def let_go(self) -> None:
        """Close the device: mounted, it lives as long as the mount; else it is free again."""
        os.close(self.descriptor)


def missing() -> str:
    """Say what this host lacks for disks, or return an empty string."""
    if _program() is None:
        return "mkfs.ext4 is not installed (package e2fsprogs)"
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return "no access to /dev/loop-control"
    return ""


def _program() -> str | None:
    """Find mkfs.ext4 where distributions put it too: the PATH of an ordinary user or a service may lack that."""
    return shutil.which("mkfs.ext4", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))


def make(image: Path, size_mib: int, owner: int) -> Disk:
    """Make an empty ext4 image whose root belongs to host uid `owner`, on a loop device. Blocks.

    Raises `StartFailed`; then nothing is left.
    """
    lacking = missing()
    if lacking:
        raise errors.StartFailed(f"cannot make a disk: {lacking}", stage="disk")
    image.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with image.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(max(size_mib, MINIMUM_MIB) << 20)
        options = ("-q", "-m", "0", "-O", "^has_journal", "-E", f"root_owner={owner}:{owner},nodiscard")
        subprocess.run([_program() or "mkfs.ext4", *options, str(image)], check=True, capture_output=True, timeout=60)
        return _attach(image)
    except (OSError, subprocess.SubprocessError) as error:
        image.unlink(missing_ok=True)
        raise errors.StartFailed(f"cannot make a disk: {error}", stage="disk") from error


def _attach(image: Path) -> Disk:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_TRIES):  # another process may take the number that we were told is free
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            config = _LoopConfig(fd=backing)
            config.info.lo_flags = _LO_FLAGS_AUTOCLEAR
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError:
                os.close(device)
                if attempt == _TRIES - 1:
                    raise
            else:
                return Disk(image, f"/dev/loop{number}", device)
    finally:
        os.close(control)
        os.close(backing)
    raise OSError("no loop device is free")


def remove(image: Path) -> None:
    """Remove the image of a dead sandbox; a missing one is fine."""
    image.unlink(missing_ok=True)
