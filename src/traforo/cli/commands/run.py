"""`traforo run`."""

from __future__ import annotations

import contextlib

from traforo.cli import durations, interrupts, leases, options, printers, streams


def run(
    *command: options.Words,
    shape: options.Shape = options.Shape(),  # noqa: B008 - frozen
    start: options.Start = options.Start(),  # noqa: B008 - frozen
    env: options.Env = (),
    ttl: durations.Option = None,
    url: options.Url = None,
) -> int:
    """Run a command in a new sandbox, and delete the sandbox.

    Output passes through as it comes, stdout to stdout and stderr to stderr, and the exit code is that of the command:
    128 + signal if it was killed, 124 if its timeout or the sandbox's time passed, 127 if there is no such command, 126
    if it cannot be run, 125 if anything else failed. Ctrl-C deletes the sandbox: `traforo run --cpu 0.5 -- python3 -c
    'print(1)'`.

    Args:
        command: The command and its arguments, after `--`. No shell sees it.
        shape: What the sandbox is made of.
        start: How the command starts.
        env: Environment of the command.
        ttl: Time until the sandbox ends, whatever it does, such as `90` or `1h` [default: as long as this program].
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox, errors

    words = options.required(command, "traforo run -- python3 -c 'print(1)'")
    variables = options.variables(env)
    with interrupts.handled() as signals, contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(url))
        try:
            with signals.held():
                arguments = {**shape.arguments(), "ttl_seconds": ttl or leases.SECONDS, "client": client}
                sandbox = stack.enter_context(Sandbox.create(**arguments))
            if ttl is None:
                stack.enter_context(leases.renewed(sandbox))
            execution = sandbox.start(words, env=variables, cwd=start.cwd, user=start.user, timeout=start.timeout)
            return streams.follow(execution, sandbox)
        except errors.StartFailed as error:
            printers.error(error.message, error.hint or streams.start_hint(words))
            return streams.start_failure(error.fields.get("stage"), error.fields.get("errno_name"))
        except interrupts.Interrupted as error:
            return error.exit_code
