"""`traforo events`."""

from __future__ import annotations

import json as codec

from traforo.cli import interrupts, names, options, printers


def events(
    sandbox: options.SandboxId,
    /,
    *,
    follow: options.Follow = False,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Print what happened to a sandbox.

    Its creation, its leases, the beginning and end of its commands, what the kernel killed, and its end.

    Args:
        sandbox: Id of the sandbox.
        follow: Go on with what comes, until the sandbox has ended.
        url: URL of the server.
        json: Print JSON, one object a line.
    """
    from traforo.sdk import Client, results

    with interrupts.handled(), Client(url) as client:
        try:
            for event in names.sandbox(sandbox, client).events(follow=follow):
                record = results.as_json(event)
                if json:
                    print(codec.dumps(record), flush=True)
                    continue
                more = " ".join(f"{name}={value}" for name, value in record["facts"].items() if value is not None)
                print(printers.shown(f"{record['ts'] or '-'}  {record['type']:<16}  {more}".rstrip()), flush=True)
        except interrupts.Interrupted as error:
            return error.exit_code
    return 0
