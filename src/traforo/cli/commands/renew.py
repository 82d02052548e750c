"""`traforo renew`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from traforo.cli import durations, names, options, printers


def renew(
    sandbox: options.SandboxId,
    /,
    *,
    ttl: durations.Option = None,
    idle: Annotated[durations.Option, Parameter(name=["--idle", "--idle-seconds"])] = None,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Let a sandbox live longer, or shorter.

    Its time limit counts from now on: `traforo renew $ID --ttl 1h`. When it ends is printed.

    Args:
        sandbox: Id of the sandbox.
        ttl: Time until it ends by itself, such as `90`, `30m` or `1h30m` [default: as it is].
        idle: Time without activity after which it ends before that, 0 for no such limit [default: as it is].
        url: URL of the server.
        json: Print JSON, with the token that opens the sandbox until then.
    """
    from traforo.sdk import Client, results

    if ttl is None and idle is None:
        raise printers.UsageError("nothing to renew", f"write `traforo renew {sandbox} --ttl 1h`")
    with Client(url) as client:
        found = names.sandbox(sandbox, client)
        expires_at = results.as_json(found.renew(ttl, idle_seconds=idle))
        if json:
            info = found.info()
            facts = {"sandbox_id": found.id, "expires_at": expires_at, "idle_seconds": info.idle_seconds}
            printers.document({**facts, "token": found.token})
        else:
            print(expires_at)
