"""Errors of the SDK in the words of the command line: what it calls an argument or a route is an option here."""

from __future__ import annotations

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


def told(error: TraforoError) -> tuple[str, str | None]:
    """Return the message and the hint for people."""
    return _message(error), _hint(error)


def _message(error: TraforoError) -> str:
    reason = str(error.fields.get("reason") or "").replace("_", " ")
    message = error.message
    if error.code == "conflict" and reason and reason not in message:
        message = f"{message} ({reason})"
    if error.request_id and error.code in _DEFECTS:
        message = f"{message} (request {error.request_id})"
    return message


def _hint(error: TraforoError) -> str | None:
    if error.code == "unauthenticated" and not error.hint:
        return "TRAFORO_TOKEN holds the token; each one creates a single sandbox"
    if (exec_id := error.fields.get("exec_id")) and error.code in {"connection_failed", "request_timed_out"}:
        return f"it may still run: `traforo attach ID {exec_id}` comes back to it"
    hint = error.hint
    for theirs, ours in _WORDS:
        hint = hint and hint.replace(theirs, ours)
    return hint
