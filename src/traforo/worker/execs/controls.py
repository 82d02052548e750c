"""What can be done to an exec that runs: its stdin, the size of its terminal, signals.

It decides nothing about sandboxes and callers. What cannot be done is a `Conflict` that says why: it never claims that
something was taken which was not.
"""

from __future__ import annotations

from traforo.domain import errors, specs
from traforo.worker.execs import inputs, runs
from traforo.worker.runtimes import contract

_SIGKILL = 9


async def write(run: runs.Exec, data: bytes) -> None:
    """Return when all of it is in the pipe of its stdin. Raises `Conflict`, with `written` bytes that are."""
    await _input(run).write(data)


def check_input(run: runs.Exec) -> None:
    """Raise `Conflict` when its stdin is not open."""
    _input(run)


async def finish(run: runs.Exec) -> None:
    """Tell the end of its stdin. Raises `Conflict` when that is not open."""
    await _input(run).finish()


async def resize(run: runs.Exec, size: specs.Terminal) -> None:
    """Set the size of its terminal. Raises `Conflict` when it has none, or has ended."""
    if not run.tty:
        raise errors.Conflict("cannot resize: the exec has no terminal", kind="terminal", id=run.id)
    try:
        await _process(run, "resize").resize(contract.TerminalSize(size.rows, size.columns))
    except errors.NotFound as error:
        raise _ended(run, "resize") from error


async def signal(run: runs.Exec, number: int, *, tree: bool) -> None:
    """Send a signal. Raises `Conflict` when it has ended, or is no process."""
    try:
        await _process(run, "signal").signal(number, tree=tree)
    except errors.NotFound as error:
        raise _ended(run, "signal") from error


def _input(run: runs.Exec) -> inputs.Input:
    found = run.input
    if run.outcome is not None:
        raise errors.Conflict("cannot write to stdin: the exec has ended", kind="stdin", id=run.id, written=0)
    if found is None or not found.open:
        hint = "start it with 'stdin_open', and do not close it before"
        raise errors.Conflict("cannot write to stdin: it is not open", hint=hint, kind="stdin", id=run.id, written=0)
    return found


def _process(run: runs.Exec, what: str) -> contract.RunningExec:
    if run.outcome is None and run.context_id is not None:
        hint = f"interrupt its context, {run.context_id}"
        raise errors.Conflict(f"cannot {what}: it is no process of its own", hint=hint, kind="context", id=run.id)
    if run.running is None:
        raise _ended(run, what)
    return run.running


def _ended(run: runs.Exec, what: str) -> errors.Conflict:
    return errors.Conflict(f"cannot {what}: the exec has ended", kind="process", id=run.id)
