"""`traforo attach`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from traforo.cli import interrupts, names, options, printers, sessions, streams, tails, terminals


def attach(
    sandbox: options.SandboxId,
    command: options.ExecId,
    /,
    *,
    tail: options.Tail = None,
    cursor: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    read_only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    detach_keys: options.DetachKeys = terminals.DEFAULT_KEYS,
    url: options.Url = None,
) -> int:
    """Connect this terminal to a command that runs.

    What it has written so far comes first, as far as the server keeps it: all, or the end of it with `--tail 10`. One
    that runs on a terminal gets every key, until Ctrl-P Ctrl-Q; of any other the output is shown, until it ends or
    Ctrl-C. Either way the command goes on when this program ends. The exit code is that of the command, once it has
    one.

    Args:
        sandbox: Id of the sandbox.
        command: Id of the command.
        tail: Only so many lines of what there is already, and what comes [default: all].
        cursor: Only what comes after an earlier reading, which said where it stopped.
        read_only: Show its output alone.
        detach_keys: Keys that leave the command running; empty for none.
        url: URL of the server.
    """
    from traforo.sdk import Client

    if tail is not None and cursor is not None:
        raise printers.UsageError("too much to begin with", "use one of --tail and --cursor")
    keys = terminals.keys(detach_keys)
    sandbox_id, start, execution = sandbox, cursor or 0, None
    with interrupts.handled(), Client(url) as client:
        try:
            found = names.sandbox(sandbox, client)
            sandbox_id, execution = found.id, found.get_exec(command)
            result = execution.result()
            interactive = result.tty and result.status == "running" and not read_only
            if interactive:
                terminals.require_terminal()
            if tail is not None:
                start = tails.written(execution, tail)
            if not interactive:
                return streams.follow(execution, found, cursor=start, kill=False)
        except interrupts.Interrupted as error:
            if execution is not None:
                again = f"`traforo attach {sandbox_id} {command} --cursor {execution.next_cursor}`"
                printers.note(f"note: the command goes on: {again} comes back to it here")
            return error.exit_code
    return sessions.attach(sandbox_id, command, cursor=start, detach_keys=keys, interactive=True, url=url)
