"""Paths of a sandbox in requests and answers. Pure.

Inside, a path is text in which each byte that is not UTF-8 stands as a surrogate escape. In answers such a byte is
shown as `%XX`, with the exact bytes in base64 beside it; in requests a path comes as text or in base64. What a path
leads to is found out inside the sandbox: `..` and links are no business of this module.
"""

from __future__ import annotations

import base64
import binascii
import posixpath

from traforo.domain import errors
from traforo.worker.runtimes import contract

_FIRST_ESCAPE = 0xDC80
_LAST_ESCAPE = 0xDCFF
_ESCAPE_BASE = 0xDC00


def asked(path: str | None, path_b64: str | None) -> str:
    """Return the path that a request names in one of two ways. Raises `InvalidRequest`, `TooLarge`."""
    if (path is None) == (path_b64 is None):
        raise errors.InvalidRequest("cannot tell which file: give either 'path' or 'path_b64'", field="path")
    if path_b64 is not None:
        try:
            path = base64.b64decode(path_b64, validate=True).decode(errors="surrogateescape")
        except (binascii.Error, ValueError) as error:
            raise errors.InvalidRequest("cannot read 'path_b64': not base64", field="path_b64") from error
    return check(path or "")


def check(path: str) -> str:
    """Return an absolute path as it is. Raises `InvalidRequest`, `TooLarge`."""
    if not path.startswith("/"):
        raise errors.InvalidRequest(f"cannot use the path {path[:80]!r}: it is not absolute", field="path")
    if "\0" in path:
        raise errors.InvalidRequest("cannot use the path: a NUL character in it", field="path")
    if len(exact(path)) > contract.MAX_PATH_BYTES:
        raise errors.TooLarge(
            f"cannot use a path of more than {contract.MAX_PATH_BYTES} bytes",
            limit=contract.MAX_PATH_BYTES,
            field="path",
        )
    return path


def cursor(path: str) -> str:
    """Return a path as the cursor behind which a list goes on."""
    return base64.urlsafe_b64encode(exact(path)).decode()


def read_cursor(text: str | None) -> str | None:
    """Return the path of a cursor. Raises `InvalidRequest`."""
    if text is None:
        return None
    try:
        found = base64.b64decode(text, altchars=b"-_", validate=True).decode(errors="surrogateescape")
    except (binascii.Error, ValueError) as error:
        raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor") from error
    if not found.startswith("/"):
        raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor")
    return found


def exact(path: str) -> bytes:
    """Return the bytes of a path. Raises `InvalidRequest` for text that cannot be one."""
    try:
        return path.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest("cannot use the path: it is not text", field="path") from error


def is_root(path: str) -> bool:
    """Tell whether a path can only mean the root directory."""
    return posixpath.normpath(path).strip("/") == ""


def shown(path: str) -> str:
    """Return a path, or a name, for people: stray bytes as `%XX`."""
    if path.isascii():
        return path
    return "".join(f"%{ord(c) - _ESCAPE_BASE:02X}" if _FIRST_ESCAPE <= ord(c) <= _LAST_ESCAPE else c for c in path)


def fields(path: str, key: str = "path") -> dict[str, str]:
    """Return what an answer says of a path (or name): as shown, and in base64 where that is not exact."""
    if path.isascii():
        return {key: path}
    text = shown(path)
    if text == path:
        return {key: text}
    return {key: text, f"{key}_b64": base64.b64encode(exact(path)).decode()}
