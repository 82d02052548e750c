"""`traforo shell`."""

from __future__ import annotations

import contextlib

from traforo.cli import leases, options, sessions, terminals


def shell(
    sandbox: str | None = None,
    /,
    *command: options.Words,
    shape: options.Shape = options.Shape(),  # noqa: B008 - frozen
    start: options.Start = options.Start(),  # noqa: B008 - frozen
    env: options.Env = (),
    tag: str | None = None,
    detach_keys: options.DetachKeys = terminals.DEFAULT_KEYS,
    url: options.Url = None,
) -> int:
    """Open a shell in a sandbox, or in a new one.

    With an id the shell runs in that sandbox, which stays: `traforo shell $ID`. Without one a sandbox is made for it,
    and deleted when the shell ends: `traforo shell --image dir:/srv/root`.

    It is the login shell of the user, or the command after the id and `--`. Every key goes to it, Ctrl-C included.
    Ctrl-P Ctrl-Q leaves it running; `traforo attach` comes back to it. The exit code is that of the shell. A connection
    that breaks is made anew.

    Args:
        sandbox: Id of the sandbox; a new one without it.
        command: What to run in place of the shell, after the id and `--`.
        shape: What a new sandbox is made of.
        start: How the shell starts.
        env: Environment of the shell.
        tag: A name to find it by.
        detach_keys: Keys that leave the shell running and end this program; empty for none.
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox

    options.begins_with_name(command)
    terminals.require_terminal()
    keys = terminals.keys(detach_keys)
    how = {"env": options.variables(env), "cwd": start.cwd, "user": start.user, "timeout": start.timeout, "tag": tag}
    if sandbox is not None:
        return sessions.run(sandbox, command, how, detach_keys=keys, url=url)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(url))
        made = stack.enter_context(Sandbox.create(**shape.arguments(), ttl_seconds=leases.SECONDS, client=client))
        stack.enter_context(leases.renewed(made))
        # Nobody could come back to a shell whose sandbox is deleted.
        return sessions.run(made.id, command, how, detach_keys=b"", sandbox_token=made.token, url=url)
