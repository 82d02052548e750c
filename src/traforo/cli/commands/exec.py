"""`traforo exec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from traforo.cli import interrupts, names, options, printers, sessions, streams, terminals

if TYPE_CHECKING:
    from traforo.sdk import Exec


def exec(  # noqa: A001 - the name of the command
    sandbox: options.SandboxId,
    /,
    *command: options.Words,
    interactive: options.Interactive = False,
    tty: options.Tty = False,
    detach: Annotated[bool, Parameter(name=["--detach", "-d"], negative="", show_default=False)] = False,
    tag: str | None = None,
    start: options.Start = options.Start(),  # noqa: B008 - frozen
    env: options.Env = (),
    detach_keys: options.DetachKeys = terminals.DEFAULT_KEYS,
    url: options.Url = None,
) -> int:
    """Run a command in a sandbox.

    Output passes through as it comes, and the exit code is that of the command, as for `traforo run`. Ctrl-C kills the
    command and leaves the sandbox: `traforo exec $ID -- python3 --version`.

    With `-i` it reads what this program reads: `traforo exec -i $ID -- wc -l < data.csv`. With `-it` somebody types to
    it, every key included: `traforo exec -it $ID -- python3`. With `-d` it goes on by itself and its id is printed, for
    `traforo attach`, `logs` and `kill`.

    Args:
        sandbox: Id of the sandbox.
        command: The command and its arguments, after `--`. No shell sees it.
        interactive: Pass the input of this program on to it.
        tty: Run it on a terminal of the size of this one; all its output is stdout then.
        detach: Do not wait: print its id.
        tag: A name to find it by: `traforo kill $ID --tag NAME`.
        start: How the command starts.
        env: Environment of the command.
        detach_keys: With `-it`, keys that leave the command running and end this program; empty for none.
        url: URL of the server.
    """
    from traforo.sdk import Client, errors

    words = options.required(command, "traforo exec ID -- python3 --version")
    if detach and (interactive or tty):
        raise printers.UsageError("-d does not go with -i and -t", "start it with -d and use `traforo attach`")
    if tty and interactive:
        terminals.require_terminal()
    variables = options.variables(env)
    how: dict[str, Any] = {
        "env": variables,
        "cwd": start.cwd,
        "user": start.user,
        "timeout": start.timeout,
        "tag": tag,
    }
    if tty:
        return sessions.run(
            sandbox, words, how, detach_keys=terminals.keys(detach_keys), interactive=interactive, url=url
        )
    with interrupts.handled() as signals, Client(url) as client:
        execution: Exec | None = None
        try:
            found = names.sandbox(sandbox, client)
            with signals.held():
                execution = found.start(words, stdin_open=interactive, **how)
            if detach:
                print(execution.id)
                return 0
            feeder = streams.feed(execution) if interactive else None
            code = streams.follow(execution, found)
            if feeder is not None and feeder.problem is not None:
                raise feeder.problem
            return code
        except errors.StartFailed as error:
            printers.error(error.message, error.hint or streams.start_hint(words))
            return streams.start_failure(error.fields.get("stage"), error.fields.get("errno_name"))
        except interrupts.Interrupted as error:
            if execution is not None:
                execution.kill()
            return error.exit_code
