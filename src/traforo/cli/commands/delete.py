"""`traforo delete`."""

from __future__ import annotations

from traforo.cli import names, options, printers, problems


def delete(*sandboxes: options.SandboxId, url: options.Url = None, json: options.Json = False) -> int:
    """Delete sandboxes.

    Each is dead when its id is printed. One that cannot be deleted does not keep the others alive; the exit code is 1
    then.

    Args:
        sandboxes: Ids of the sandboxes.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, errors

    if not sandboxes:
        raise printers.UsageError(
            "no sandbox to delete", "write `traforo delete ID…`; `traforo list -q` prints all ids"
        )
    deleted: list[str] = []
    with Client(url) as client:
        for sandbox_id in sandboxes:
            try:
                names.sandbox(sandbox_id, client).delete()
            except errors.ConnectionFailed:
                raise
            except errors.TraforoError as error:
                message, hint = problems.told(error)
                printers.error(f"cannot delete {sandbox_id!r}: {message}", hint)
                continue
            deleted.append(sandbox_id)
            if not json:
                print(printers.shown(sandbox_id), flush=True)
    if json:
        printers.document({"deleted": deleted})
    return 0 if len(deleted) == len(sandboxes) else 1
