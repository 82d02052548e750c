"""`traforo get`."""

from __future__ import annotations

import json as codec

from traforo.cli import options, printers


def get(sandbox: options.SandboxId, /, *, url: options.Url = None, json: options.Json = False) -> None:
    """Show one sandbox.

    One that ended is known for an hour, with the reason of its end.

    Args:
        sandbox: Id of the sandbox.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, Sandbox, results

    with Client(url) as client:
        info = results.as_json(Sandbox.connect(sandbox, client=client).info())
    if json:
        printers.document(info)
    else:
        printers.pairs([(name, codec.dumps(v) if isinstance(v, dict) else v) for name, v in info.items()])
