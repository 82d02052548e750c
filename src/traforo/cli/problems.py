"""Errors of the SDK in the words of the command line: what it calls an argument or a route is an option here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traforo.sdk.errors import TraforoError

_DEFECTS = {"internal", "bad_answer"}
"""Errors whose request id is told: it leads to the line in the server's log."""
_WORDS = (
    ("or `url` right", "or --url right"),
    ("'recursive': true", "--recursive"),
    ("'overwrite': true", "--overwrite"),
    ("disk_kind 'disk'", "--disk-kind disk"),
    ("more memory_mib", "more --memory-mib"),
    ("`list_execs()`", "`traforo ps ID`"),
)
"""What hints of the server and the SDK say, and what it is called here."""
_OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in ("cpu", "memory_mib", "disk_mib", "pids", "image", "name")},
    **{name: f"--{name.replace('_', '-')}" for name in ("virtualization", "hardware_sku", "env", "metadata")},
    **{name: f"--{name}" for name in ("limit", "state", "cwd", "user", "tag", "pid", "cursor")},
    "ttl_seconds": "--ttl",
    "idle_seconds": "--idle",
    "timeout_ms": "--timeout",
    "expires_in_seconds": "--expires",
    "path": "the path",
}
"""Fields of requests, and what sets them here."""


_REFUSED = re.compile(r"^cannot read '\w+' in the \w+:")
"""How the server begins to say what is wrong with one field."""


def told(error: TraforoError) -> tuple[str, str | None]:
    """Return the message and the hint for people."""
    return _message(error), _hint(error)


def _message(error: TraforoError) -> str:
    reason = str(error.fields.get("reason") or "").replace("_", " ")
    message = error.message
    if error.code == "conflict" and reason and reason not in message:
        message = f"{message} ({reason})"
    if (option := _OPTIONS.get(str(error.fields.get("field")))) is not None:
        message = _REFUSED.sub(f"cannot use {option}:", message)
    if error.request_id and error.code in _DEFECTS:
        message = f"{message} (request {error.request_id})"
    return message


def _hint(error: TraforoError) -> str | None:
    if error.code == "unauthenticated" and not error.hint:
        return "TRAFORO_TOKEN holds the token, and each creates one sandbox; `traforo token` signs one with the secret"
    if (exec_id := error.fields.get("exec_id")) and error.code in {"connection_failed", "request_timed_out"}:
        return f"it may still run: `traforo attach ID {exec_id}` comes back to it"
    if error.code == "malformed_id" and "sandbox" in error.message and not error.hint:
        return "`traforo list` shows the ids of yours"
    hint = error.hint
    for theirs, ours in _WORDS:
        hint = hint and hint.replace(theirs, ours)
    return hint
