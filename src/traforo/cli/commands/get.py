"""`traforo get`."""

from __future__ import annotations

from traforo.cli import names, options, printers


def get(sandbox: options.SandboxId, /, *, url: options.Url = None, json: options.Json = False) -> None:
    """Show one sandbox.

    One that ended is known for an hour, with the reason of its end.

    Args:
        sandbox: Id of the sandbox.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        info = results.as_json(names.sandbox(sandbox, client).info())
    if json:
        printers.document(info)
    else:
        printers.pairs([(name, _text(value)) for name, value in info.items()])


def _text(value: object) -> object:
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value
