"""`traforo kill`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from traforo.cli import names, options, printers, problems


def kill(
    sandbox: options.SandboxId,
    /,
    *commands: options.ExecId,
    signal: Annotated[str, Parameter(name=["--signal", "-s"])] = "TERM",
    tag: str | None = None,
    pid: int | None = None,
    alone: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    url: options.Url = None,
) -> int:
    """Send a signal to commands of a sandbox.

    By id, by tag, or to one process: `traforo kill $ID exec_01…`, `traforo kill $ID --tag server -s INT`. A command
    that has ended already is no error; one that never was is.

    Args:
        sandbox: Id of the sandbox.
        commands: Ids of the commands.
        signal: Name or number of the signal.
        tag: Every command with this tag.
        pid: A process, by its id inside the sandbox.
        alone: Only to the process itself, not to those that descend from it.
        url: URL of the server.
    """
    from traforo.sdk import Client, errors

    if not commands and tag is None and pid is None:
        raise printers.UsageError("nothing to signal", "name commands by id, or use --tag or --pid")
    if bool(commands) + (tag is not None) + (pid is not None) > 1:
        raise printers.UsageError("too much to signal", "name commands by id, or use one of --tag and --pid")
    number: str | int = int(signal) if signal.isdecimal() else signal.upper().removeprefix("SIG")
    code = 0
    with Client(url) as client:
        found = names.sandbox(sandbox, client)
        for exec_id in commands:
            try:
                found.get_exec(exec_id).signal(number, tree=not alone)
            except errors.Conflict:
                printers.note(f"note: {exec_id} has ended already")
            except (errors.NotFound, errors.MalformedId) as error:
                printers.error(*problems.told(error))
                code = 1
        if tag is not None and not found.signal(number, tag=tag, tree=not alone):
            printers.note(f"note: nothing with the tag {tag!r} runs")
        if pid is not None and not found.signal(number, pid=pid, tree=not alone):
            printers.error(f"no process {pid} in the sandbox")
            code = 1
    return code
