"""`traforo attach`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from traforo.cli import interrupts, options, printers, sessions, streams, terminals


def attach(
    sandbox: options.SandboxId,
    command: options.ExecId,
    /,
    *,
    read_only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    detach_keys: options.DetachKeys = terminals.DEFAULT_KEYS,
    url: options.Url = None,
) -> int:
    """Connect this terminal to a command that runs.

    What it has written so far comes first, as far as the server keeps it. One that runs on a terminal gets every key,
    until Ctrl-P Ctrl-Q; of any other the output is shown, until it ends or Ctrl-C. Either way the command goes on when
    this program ends. The exit code is that of the command, once it has one.

    Args:
        sandbox: Id of the sandbox.
        command: Id of the command.
        read_only: Show its output alone.
        detach_keys: Keys that leave the command running; empty for none.
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox

    keys = terminals.keys(detach_keys)
    with interrupts.handled(), Client(url) as client:
        try:
            execution = Sandbox.connect(sandbox, client=client).get_exec(command)
            result = execution.result()
            interactive = result.tty and result.status == "running" and not read_only
            if not interactive:
                return streams.follow(execution, kill=False)
        except interrupts.Interrupted as error:
            printers.note("note: the command goes on")
            return error.exit_code
    terminals.require_terminal()
    return sessions.attach(sandbox, command, cursor=0, detach_keys=keys, interactive=True, url=url)
