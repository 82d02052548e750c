"""The user an image names, in the form every runtime takes: a name, a number, or two numbers `uid:gid`.

`name:group` needs the image's own /etc/passwd and /etc/group, which are read here once, when the image is made.
"""

from __future__ import annotations

import os
from pathlib import Path

from traforo.worker.images import manifests

_MAX_BYTES = 1024 * 1024
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def resolve(user: str, root: Path) -> str:
    """Return `user` with a group by name turned into numbers, from the account files below `root`.

    Raises `InvalidRequest` where the image does not know the user or the group.
    """
    name, colon, group = user.partition(":")
    if not colon or (name.isdigit() and group.isdigit()):
        return user
    uid = name if name.isdigit() else _number(_lines(root, b"passwd"), name)
    gid = group if group.isdigit() else _number(_lines(root, b"group"), group)
    if uid is None or gid is None:
        raise manifests.invalid(f"its user '{user}' is not in its own /etc/passwd and /etc/group")
    return f"{uid}:{gid}"


def _number(lines: list[str], name: str) -> str | None:
    """Return the third field of the line that begins with `name`."""
    for line in lines:
        first, _, number, *_ = [*line.split(":"), "", ""]
        if first == name and number.isdigit():
            return number
    return None


def _lines(root: Path, name: bytes) -> list[str]:
    """Return the lines of an account file; none where it is missing, a link or anything but a file."""
    opened: list[int] = []
    try:
        opened.append(os.open(root, _DIRECTORY))
        opened.append(os.open(b"etc", _DIRECTORY, dir_fd=opened[-1]))
        opened.append(os.open(name, _FILE, dir_fd=opened[-1]))
        return os.pread(opened[-1], _MAX_BYTES, 0).decode("ascii", errors="replace").splitlines()
    except OSError:
        return []
    finally:
        for descriptor in opened:
            os.close(descriptor)
