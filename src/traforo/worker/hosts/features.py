"""What this host can do for sandboxes, found by doing it once in a throw-away child.

Each probe answers yes or no and says why not in words; none looks at a version. The runtime plans by the answers, and
`traforo doctor` prints them with what their absence costs.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NODEV = 4
MS_PRIVATE = 1 << 18
MS_REC = 0x4000


@dataclass(frozen=True, slots=True)
class Probe:
    """One answer. `detail` says why not, or is empty."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Features:
    """Everything the container runtime plans by."""

    root: bool
    """This process may do everything on the host."""
    overlay: Probe
    """An overlay can be mounted inside a user namespace, with its upper directory on tmpfs."""
    overlay_xattr: Probe
    """tmpfs keeps user.* attributes, so that such an overlay can replace whole directories."""
    idmap: Probe
    """Owners of a layer can be mapped to a sandbox's own uid range."""
    namespaces: Probe
    """All seven namespaces can be made at once."""
    overlay_trusted: Probe = Probe(ok=False)
    """An overlay on tmpfs can replace whole directories if the root of the host mounts it, by trusted.* attributes."""


_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces. Raises `OSError`."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str, flags: int, options: str) -> None:
    """Attach a file system, as the system call does. Raises `OSError`."""
    arguments = (os.fsencode(source), os.fsencode(target), os.fsencode(fstype))
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()), f"mount {fstype} at {target}")


def _in_child(probe: Callable[[], None]) -> Probe:
    """Run a probe in a forked child, whose namespaces die with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.close(reader)
        try:
            probe()
        except OSError as error:
            os.write(writer, str(error).encode()[:1000] or b"failed")
            os._exit(1)
        except BaseException as error:  # noqa: BLE001 - nothing may return into the parent's code
            os.write(writer, repr(error).encode()[:1000])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        detail = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return Probe(status == 0, detail if status else "")


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount("none", "/", "none", MS_REC | MS_PRIVATE, "")


def _leave_mount_namespace() -> None:
    unshare(CLONE_NEWNS)
    mount("none", "/", "none", MS_REC | MS_PRIVATE, "")


def _overlay_in(directory: str, options: str) -> None:
    mount("tmpfs", directory, "tmpfs", MS_NODEV, "size=1m,mode=755")
    for name in ("lower", "lower/dir", "upper", "work", "merged"):
        Path(directory, name).mkdir()
    layers = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
    mount("overlay", f"{directory}/merged", "overlay", MS_NODEV, layers + options)


def _probe_overlay(directory: str) -> None:
    _enter_user_namespace()
    _overlay_in(directory, ",userxattr")
    Path(directory, "merged", "file").write_text("x")


def _probe_overlay_xattr(directory: str) -> None:
    _enter_user_namespace()
    _overlay_in(directory, ",userxattr")
    _replace_directory(directory)


def _probe_overlay_trusted(directory: str) -> None:
    _leave_mount_namespace()
    _overlay_in(directory, "")
    _replace_directory(directory)


def _replace_directory(directory: str) -> None:
    Path(directory, "merged", "dir").rmdir()
    Path(directory, "merged", "dir").mkdir()  # needs an "opaque" mark, an extended attribute of the upper directory


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_IDMAP = 0x00100000
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 4


def _mapped_namespace() -> int:
    """Return a descriptor of a user namespace that maps 65,536 users; needs root."""
    ready_reader, ready_writer = os.pipe()
    done_reader, done_writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            unshare(CLONE_NEWUSER)
            os.write(ready_writer, b"x")
            os.close(done_writer)
            os.read(done_reader, 1)
        finally:
            os._exit(0)
    os.close(ready_writer)
    try:
        os.read(ready_reader, 1)
        Path(f"/proc/{child}/uid_map").write_text("0 1000000000 65536")
        Path(f"/proc/{child}/gid_map").write_text("0 1000000000 65536")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        os.close(done_writer)
        os.close(done_reader)
        os.close(ready_reader)
        os.waitpid(child, 0)


def _probe_idmap(directory: str, source: str) -> None:
    """Map the owners of `source` and put an overlay over it, as every start of a sandbox does."""
    _leave_mount_namespace()
    namespace = _mapped_namespace()
    mount("tmpfs", directory, "tmpfs", MS_NODEV, "size=1m,mode=755")
    for name in ("lower", "upper", "work", "merged"):
        Path(directory, name).mkdir()
    tree = _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE)
    _check(tree, "open_tree")
    attr = _MountAttr(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=namespace)
    _check(
        _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attr), ctypes.sizeof(attr)),
        f"map the owners of {source}",
    )
    lower = os.fsencode(f"{directory}/lower")
    _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, lower, _MOVE_MOUNT_F_EMPTY_PATH), "move_mount")
    options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
    mount("overlay", f"{directory}/merged", "overlay", MS_NODEV, options)


def _probe_namespaces() -> None:
    unshare(
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
    )


def probe(image_directory: str) -> Features:
    """Try everything. `image_directory` is on the file system that holds layers. Blocks and forks."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="traforo-probe-") as directory:
        return Features(
            root=root,
            namespaces=_in_child(_probe_namespaces),
            overlay=_in_child(lambda: _probe_overlay(directory)),
            overlay_xattr=_in_child(lambda: _probe_overlay_xattr(directory)),
            overlay_trusted=_in_child(lambda: _probe_overlay_trusted(directory)),
            idmap=_in_child(lambda: _probe_idmap(directory, image_directory))
            if root
            else Probe(ok=False, detail="needs root"),
        )
