"""`traforo watch`."""

from __future__ import annotations

import json as codec
from typing import Annotated

from cyclopts import Parameter

from traforo.cli import interrupts, names, options, printers


def watch(
    sandbox: options.SandboxId,
    path: str,
    /,
    *,
    recursive: Annotated[bool, Parameter(name=["--recursive", "-r"], negative="", show_default=False)] = False,
    user: str | None = None,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Print what happens to the files of a sandbox.

    One line for each change, from now on until Ctrl-C or until the directory is gone. `overflow` says that changes were
    lost, so that everything has to be looked at again.

    Args:
        sandbox: Id of the sandbox.
        path: Absolute path of the directory.
        recursive: Whatever is below it too.
        user: Whose rights count in the sandbox [default: the image's user].
        url: URL of the server.
        json: Print JSON, one object a line.
    """
    from traforo.sdk import Client, results

    with interrupts.handled(), Client(url) as client:
        changes = names.sandbox(sandbox, client).files.watch(path, recursive=recursive, user=user)
        try:
            for change in changes:
                if json:
                    print(codec.dumps(results.as_json(change)), flush=True)
                else:
                    came = f"  (from {change.moved_from})" if change.moved_from else ""
                    print(printers.shown(f"{change.kind:<10}  {change.path}{came}"), flush=True)
        except interrupts.Interrupted as error:
            return error.exit_code
        finally:
            changes.close()
    return 0
