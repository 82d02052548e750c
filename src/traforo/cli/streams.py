"""Passes a command's output through as it comes, byte by byte, and its end on as an exit code."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from traforo.cli import printers

if TYPE_CHECKING:
    from traforo.sdk import Exec, Frame, Sandbox

NOT_FOUND = 127
NOT_EXECUTABLE = 126
FAILED = 125
"""It says nothing about the command: it was not started, or nobody knows how it ended. As `env` and `timeout` do."""
TIME_PASSED = 124
BLOCK_BYTES = 64 * 1024
_NOTES = {
    "timed_out": "the command and all it started were killed: its timeout passed",
    "out_of_memory": "the command was killed: the sandbox was out of memory",
    "lost": "the command was lost: nobody knows how it ended",
}
_REASONS = {
    "deleted": "it was deleted",
    "expired": "its lease was over; `--ttl` and `traforo renew` make it longer",
    "idle": "it had been idle for as long as it may be",
    "out_of_memory": "it was out of memory",
    "worker_stopped": "its worker was stopped",
}
"""Why a sandbox ended, with all that ran in it."""


class Left(BaseException):
    """A signal asked this program to end while a command goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def follow(execution: Exec, sandbox: Sandbox, *, cursor: int | None = None, kill: bool = True) -> int:
    """Write its output, from a cursor on, until it ends, and return the exit code for this process.

    Raises BrokenPipeError when nobody reads any more; then the command is killed, as a pipe would have done.
    """
    end: dict[str, Any] = {}
    gone_before = execution.dropped
    try:
        for frame in execution.output(cursor):
            if frame.type == "exit":
                end = end_of(frame)
            elif frame.type in {"stdout", "stderr"}:
                stream = sys.stdout.buffer if frame.type == "stdout" else sys.stderr.buffer
                stream.write(frame.data)
                stream.flush()
    except BrokenPipeError:
        if kill:
            execution.kill()
        raise
    if gone := execution.dropped - gone_before:
        printers.note(f"note: {gone} bytes of older output were gone before they could be read")
    if "end" not in end or "exit_code" not in end:
        result = execution.wait()
        end = {"end": result.end, "exit_code": result.exit_code}
    code = exit_code(end["end"], end["exit_code"], end_reason(sandbox) if end["end"] == "lost" else None)
    # Whoever started it and gets 0 takes the output for whole. What was there before one attached is another matter.
    return FAILED if gone and kill and code == 0 else code


def end_reason(sandbox: Sandbox) -> str | None:
    """Return why a sandbox has ended; None if it has not, or nobody can tell."""
    from traforo.sdk import errors

    try:
        return sandbox.info().reason
    except errors.TraforoError:
        return None


def feed(execution: Exec) -> Feeder:
    """Write this program's input to a command as it comes, in a thread that nobody waits for."""
    return Feeder(execution)


class Feeder:
    """Passes input on. What went wrong is kept for whoever looks at the end of the command."""

    def __init__(self, execution: Exec) -> None:
        self.problem: Exception | None = None
        self._execution = execution
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    def _run(self) -> None:
        from traforo.sdk import errors

        try:
            self._execution.write(iter(lambda: os.read(sys.stdin.fileno(), BLOCK_BYTES), b""))
            self._execution.close_stdin()
        except (errors.Conflict, errors.NotFound):
            pass  # it ended, or closed its input, before it had read everything
        except (errors.TraforoError, OSError) as error:
            self.problem = error
            self._execution.kill()


def write_whole(descriptor: int, data: bytes) -> None:
    """Write everything, however long it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody else's program left it so
            os.set_blocking(descriptor, True)


def end_of(frame: Frame) -> dict[str, Any]:
    """Return what an `exit` frame tells, as far as it can be read."""
    from traforo.sdk import messages

    return messages.end_of(frame)


def exit_code(end: str | None, code: int | None, reason: str | None = None) -> int:
    """Return the exit code that tells how a command ended, with a note where a number alone would mislead.

    `reason` is why its sandbox has ended, where that took the command along.
    """
    if end == "lost" and reason in _REASONS:
        printers.note(f"note: the command was killed with its sandbox: {_REASONS[reason]}")
        return TIME_PASSED if reason == "expired" else FAILED
    if end in _NOTES:
        printers.note(f"note: {_NOTES[end]}")
    return FAILED if code is None else code & 0xFF


def start_failure(stage: str | None, errno_name: str | None) -> int:
    """Return the exit code for a command that could not be started: 127 and 126 as a shell, 125 where it is not the
    command that is missing.
    """
    if stage != "exec":
        return FAILED
    return NOT_FOUND if errno_name in {"ENOENT", "ENOTDIR"} else NOT_EXECUTABLE


def start_hint(command: tuple[str, ...]) -> str | None:
    """Return advice for a command that could not be started."""
    if len(command) == 1 and any(c in command[0] for c in " |&;<>$"):
        return f"a line for the shell is run as: sh -c {command[0]!r}"
    return None
