"""Passes a command's output through as it comes, byte by byte, and its end on as an exit code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from traforo.cli import printers

if TYPE_CHECKING:
    from traforo.sdk import Exec

NOT_FOUND = 127
NOT_EXECUTABLE = 126
LOST = 1
_NOTES = {
    "timed_out": "the command and all it started were killed: its timeout passed",
    "out_of_memory": "the command was killed: the sandbox was out of memory",
    "lost": "the command was lost: the sandbox ended while it ran",
}


def follow(execution: Exec) -> int:
    """Write its output to stdout and stderr until it ends, and return the exit code for this process.

    Raises BrokenPipeError when nobody reads any more; then the command is killed, as a pipe would have done.
    """
    end: dict[str, Any] = {}
    try:
        for frame in execution.frames():
            if frame.type == "exit":
                end = _end(frame.data)
            else:
                stream = sys.stdout.buffer if frame.type == "stdout" else sys.stderr.buffer
                stream.write(frame.data)
                stream.flush()
    except BrokenPipeError:
        execution.kill()
        raise
    if execution.dropped:
        printers.note(f"note: {execution.dropped} bytes of older output were gone before they could be read")
    if "end" not in end or "exit_code" not in end:
        result = execution.wait()
        end = {"end": result.end, "exit_code": result.exit_code}
    return exit_code(end["end"], end["exit_code"])


def _end(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def exit_code(end: str | None, code: int | None) -> int:
    """Return the exit code that tells how a command ended, with a note where a number alone would mislead."""
    if end in _NOTES:
        printers.note(f"note: {_NOTES[end]}")
    return LOST if code is None else code & 0xFF


def start_failure(stage: str | None, errno_name: str | None) -> int:
    """Return the exit code for a command that could not be started, as a shell would choose it."""
    if stage != "exec":
        return 1
    return NOT_FOUND if errno_name in {"ENOENT", "ENOTDIR"} else NOT_EXECUTABLE


def start_hint(command: tuple[str, ...]) -> str | None:
    """Return advice for a command that could not be started."""
    if len(command) == 1 and any(c in command[0] for c in " |&;<>$"):
        return f"a line for the shell is run as: sh -c {command[0]!r}"
    return None
