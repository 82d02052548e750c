"""`traforo cp`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from traforo.cli import copies, names, options, printers


def cp(
    source: options.Words,
    target: options.Words,
    /,
    *,
    recursive: Annotated[bool, Parameter(name=["--recursive", "-r"], negative="", show_default=False)] = False,
    user: str | None = None,
    url: options.Url = None,
) -> None:
    """Copy files and directories into a sandbox or out of it.

    One side is `ID:/path`, the other a local path: `traforo cp data.csv $ID:/data/data.csv`, `traforo cp $ID:/out .`.
    A target that is a directory gets the source below its own name. `-` is stdin or stdout; a file whose name begins
    with it is written `./-name`. Directories go as one stream, with permission bits, times and links; on the way out of
    a sandbox links that lead out of the directory are left out. How far it is shows on stderr, if that is a terminal.

    Args:
        source: What to copy.
        target: Where to.
        recursive: For habit's sake: directories are copied with all that is in them in any case.
        user: Whose rights count in the sandbox, a name or a number [default: the image's].
        url: URL of the server.
    """
    from traforo.sdk import Client

    del recursive
    here, there = copies.place(options.name(source)), copies.place(options.name(target))
    if (here.sandbox_id is None) == (there.sandbox_id is None):
        raise printers.UsageError(
            "exactly one side of a copy is in a sandbox",
            "write `traforo cp FILE ID:/path` or `traforo cp ID:/path FILE`",
        )
    with Client(url) as client:
        files = names.sandbox(here.sandbox_id or there.sandbox_id or "", client).files
        if here.sandbox_id is None:
            copies.upload(files, here.path, there.path, user=user)
        else:
            copies.download(files, here.path, there.path, user=user)
