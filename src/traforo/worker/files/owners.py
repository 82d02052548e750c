"""Names of users and groups in a sandbox, looked up in its own /etc/passwd and /etc/group. Pure.

Both are files of the sandbox: read as far as they make sense, up to a size, and believed, since whoever wrote them
chooses among the sandbox's own ids alone.
"""

from __future__ import annotations

from traforo.domain import errors

USERS = "/etc/passwd"
GROUPS = "/etc/group"
MAX_BYTES = 1024 * 1024
"""Most bytes of one of them that are looked at."""
MAX_ID = 0xFFFF_FFFE
"""Largest id; one more means "leave it" to the kernel."""


def number(name: str | int) -> int | None:
    """Return the id that a request gives as a number, in either form; None for a name. Raises `InvalidRequest`."""
    if isinstance(name, str) and not (name.isascii() and name.isdigit()):
        return None
    found = int(name) if len(str(name)) <= 10 else MAX_ID + 1
    if not 0 <= found <= MAX_ID:
        raise errors.InvalidRequest(f"cannot use the id {str(name)[:20]}: 0 to {MAX_ID}", field="owner")
    return found


def find(content: bytes, name: str) -> int | None:
    """Return the id of a name in the content of one of the files, whose lines are `name:password:id:…`."""
    wanted = name.encode(errors="surrogateescape") + b":"
    for line in content[:MAX_BYTES].split(b"\n"):
        if line.startswith(wanted):
            parts = line.split(b":", 3)
            if len(parts) > 2 and parts[2].isdigit() and len(parts[2]) <= 10 and int(parts[2]) <= MAX_ID:
                return int(parts[2])
    return None
