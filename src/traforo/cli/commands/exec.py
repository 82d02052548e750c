"""`traforo exec`."""

from __future__ import annotations

from traforo.cli import interrupts, options, printers, streams


def exec(  # noqa: A001 - the name of the command
    sandbox: options.SandboxId,
    /,
    *command: options.Words,
    start: options.Start = options.Start(),  # noqa: B008 - frozen
    env: options.Env = (),
    url: options.Url = None,
) -> int:
    """Run a command in a sandbox.

    Output passes through as it comes, and the exit code is that of the command, as for `traforo run`. Ctrl-C kills the
    command and leaves the sandbox: `traforo exec $ID -- python3 --version`.

    Args:
        sandbox: Id of the sandbox.
        command: The command and its arguments, after `--`. No shell sees it.
        start: How the command starts.
        env: Environment of the command.
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox, errors

    words = options.required(command, "traforo exec ID -- python3 --version")
    variables = options.variables(env)
    with interrupts.handled() as signals, Client(url) as client:
        execution = None
        try:
            found = Sandbox.connect(sandbox, client=client)
            with signals.held():
                execution = found.start(words, env=variables, cwd=start.cwd, user=start.user, timeout=start.timeout)
            return streams.follow(execution)
        except errors.StartFailed as error:
            printers.error(error.message, error.hint or streams.start_hint(words))
            return streams.start_failure(error.fields.get("stage"), error.fields.get("errno_name"))
        except interrupts.Interrupted as error:
            if execution is not None:
                execution.kill()
            return error.exit_code
