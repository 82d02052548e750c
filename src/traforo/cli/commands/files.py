"""`traforo files` and its commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from traforo import cli
from traforo.cli import durations, meters, names, options, printers

if TYPE_CHECKING:
    from traforo.sdk import FileEntry

Path = Annotated[str, Parameter(help="Absolute path in the sandbox.")]
User = Annotated[str | None, Parameter(help="Whose rights count in the sandbox [default: the image's user].")]
Recursive = Annotated[bool, Parameter(name=["--recursive", "-r"], negative="", show_default=False)]
Kind = Literal["file", "directory", "symlink", "other"]
EXPIRES_SECONDS = 3600
_OCTAL = re.compile("[0-7]{1,4}", re.ASCII)


def list_(
    sandbox: options.SandboxId,
    path: Path = "/",
    /,
    *,
    recursive: Recursive = False,
    user: User = None,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """List a directory of a sandbox.

    Args:
        sandbox: Id of the sandbox.
        path: Absolute path in the sandbox.
        recursive: Whatever is below it too.
        user: Whose rights count.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        _entries(names.sandbox(sandbox, client).files.list(path, recursive=recursive, user=user), json=json)


def find(
    sandbox: options.SandboxId,
    path: Path,
    pattern: str = "**",
    /,
    *,
    type: Kind | None = None,  # noqa: A002 - the name of the option
    limit: options.Limit = None,
    user: User = None,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Find files by name.

    `traforo files find $ID /data '**/*.py'`.

    Args:
        sandbox: Id of the sandbox.
        path: Directory to look below.
        pattern: With `*`, `?` and `[…]` within one name, and `**` for any number of them.
        type: Only this kind.
        limit: At most so many.
        user: Whose rights count.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        found = files.find(path, pattern, type=type, limit=limit, user=user)
    if json:
        _entries(found, json=True)
        return
    for entry in found:
        print(printers.shown(entry.path))


def search(
    sandbox: options.SandboxId,
    path: Path,
    text: str,
    /,
    *,
    pattern: str | None = None,
    ignore_case: Annotated[bool, Parameter(name=["--ignore-case", "-i"], negative="", show_default=False)] = False,
    limit: options.Limit = None,
    user: User = None,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Find lines that hold a text, as it stands. The exit code is 1 if there is none.

    Args:
        sandbox: Id of the sandbox.
        path: Directory to look below.
        text: What to look for.
        pattern: Only in files whose path matches, as for `find`.
        ignore_case: Whether `a` is `A`.
        limit: At most so many.
        user: Whose rights count.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        found = files.search(path, text, pattern=pattern, ignore_case=ignore_case, limit=limit, user=user)
    if json:
        printers.document({"matches": results.as_json(tuple(found)), "truncated": found.truncated})
    else:
        for match in found:
            print(printers.shown(f"{match.path}:{match.line}:{match.column}: {match.text}"))
        if found.truncated:
            printers.note("note: there is more")
    return 0 if found else 1


def stat(
    sandbox: options.SandboxId, path: Path, /, *, user: User = None, url: options.Url = None, json: options.Json = False
) -> int:
    """Show the facts about a path. The exit code is 1 if nothing is there.

    Args:
        sandbox: Id of the sandbox.
        path: Absolute path in the sandbox.
        user: Whose rights count.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        found = results.as_json(names.sandbox(sandbox, client).files.stat(path, user=user))
    if found["mode"] is not None and not json:
        found["mode"] = f"{found['mode']:04o}"
    if json:
        printers.document(found)
    else:
        printers.pairs(list(found.items()))
    return 0 if found["exists"] else 1


def mkdir(sandbox: options.SandboxId, path: Path, /, *, user: User = None, url: options.Url = None) -> None:
    """Make a directory, and its parents. One that is there is fine.

    Args:
        sandbox: Id of the sandbox.
        path: Absolute path in the sandbox.
        user: Whose rights count.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        names.sandbox(sandbox, client).files.mkdir(path, user=user)


def remove(
    sandbox: options.SandboxId,
    /,
    *paths: Path,
    recursive: Recursive = False,
    force: Annotated[bool, Parameter(name=["--force", "-f"], negative="", show_default=False)] = False,
    user: User = None,
    url: options.Url = None,
) -> None:
    """Remove files and directories.

    Args:
        sandbox: Id of the sandbox.
        paths: Absolute paths in the sandbox.
        recursive: What a directory holds as well.
        force: Be content if there is nothing.
        user: Whose rights count.
        url: URL of the server.
    """
    from traforo.sdk import Client

    if not paths:
        raise printers.UsageError("nothing to remove", "name files and directories by their absolute paths")
    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        for path in paths:
            files.remove(path, recursive=recursive, missing_ok=force, user=user)


def move(
    sandbox: options.SandboxId,
    source: Path,
    target: Path,
    /,
    *,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    user: User = None,
    url: options.Url = None,
) -> None:
    """Move or rename within a sandbox.

    Args:
        sandbox: Id of the sandbox.
        source: What to move.
        target: Where to, the name included.
        overwrite: Replace what is there.
        user: Whose rights count.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        names.sandbox(sandbox, client).files.move(source, target, overwrite=overwrite, user=user)


def copy(
    sandbox: options.SandboxId,
    source: Path,
    target: Path,
    /,
    *,
    recursive: Recursive = False,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    user: User = None,
    url: options.Url = None,
) -> None:
    """Copy within a sandbox; `traforo cp` copies from and to this machine.

    Args:
        sandbox: Id of the sandbox.
        source: What to copy.
        target: Where to, the name included.
        recursive: A directory and whatever is below it.
        overwrite: Replace what is there.
        user: Whose rights count.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        files.copy(source, target, recursive=recursive, overwrite=overwrite, user=user)


def chmod(
    sandbox: options.SandboxId,
    mode: str,
    /,
    *paths: Path,
    recursive: Recursive = False,
    user: User = None,
    url: options.Url = None,
) -> None:
    """Change permission bits.

    `traforo files chmod $ID 755 /srv/run.sh`.

    Args:
        sandbox: Id of the sandbox.
        mode: Permission bits in octal.
        paths: Absolute paths in the sandbox.
        recursive: Whatever is below a directory too.
        user: Whose rights count.
        url: URL of the server.
    """
    if not _OCTAL.fullmatch(mode):
        raise printers.UsageError(f"cannot use {mode!r} as mode", "write it in octal, such as 644 or 0755")
    _change(sandbox, paths, {"mode": int(mode, 8), "recursive": recursive, "user": user}, url)


def chown(
    sandbox: options.SandboxId,
    owner: str,
    /,
    *paths: Path,
    recursive: Recursive = False,
    user: User = None,
    url: options.Url = None,
) -> None:
    """Change who owns files.

    `traforo files chown $ID --user root user:users /srv/data`; mostly root alone may.

    Args:
        sandbox: Id of the sandbox.
        owner: `OWNER`, `OWNER:GROUP` or `:GROUP`, each a name or a number inside the sandbox.
        paths: Absolute paths in the sandbox.
        recursive: Whatever is below a directory too.
        user: Whose rights count.
        url: URL of the server.
    """
    name, _, group = owner.partition(":")
    if not (name or group):
        raise printers.UsageError(f"cannot use {owner!r} as owner", "write OWNER, OWNER:GROUP or :GROUP")
    facts = {"owner": _name_or_number(name), "group": _name_or_number(group), "recursive": recursive, "user": user}
    _change(sandbox, paths, facts, url)


def url(
    sandbox: options.SandboxId,
    path: Path,
    /,
    *,
    method: Literal["GET", "PUT"] = "GET",
    expires: durations.Option = None,
    user: User = None,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Print a URL that opens one path without any other credential.

    Args:
        sandbox: Id of the sandbox.
        path: Absolute path in the sandbox.
        method: `GET` to read, `PUT` to write.
        expires: Time until it opens nothing any more, up to 7 days, such as `90` or `12h` [default: 1h].
        user: Whose rights it has.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        seconds = EXPIRES_SECONDS if expires is None else round(expires)
        found = files.signed_url(path, method=method, expires_in_seconds=seconds, user=user)
    if json:
        printers.document(results.as_json(found))
    else:
        print(printers.shown(found.url))


def _change(sandbox: str, paths: Sequence[str], facts: dict[str, Any], url: str | None) -> None:
    from traforo.sdk import Client

    if not paths:
        raise printers.UsageError("no path to change", "name one or more absolute paths in the sandbox")
    with Client(url) as client:
        files = names.sandbox(sandbox, client).files
        for path in paths:
            files.change(path, **facts)


def _name_or_number(text: str) -> str | int | None:
    return int(text) if text.isascii() and text.isdecimal() else text or None


def _entries(found: Sequence[FileEntry], *, json: bool) -> None:
    from traforo.sdk import results

    if json:
        printers.document({"entries": [_printable(results.as_json(entry)) for entry in found]})
        return
    rows = [(e.type, f"{e.mode:04o}", meters.amount(e.size), results.as_json(e.modified_at), e.path) for e in found]
    printers.table(("type", "mode", "size", "modified", "path"), rows)


def _printable(record: dict[str, object]) -> dict[str, object]:
    """Spell what is not UTF-8 as JSON can carry it."""
    return {k: printers.shown(v) if isinstance(v, str) and not v.isprintable() else v for k, v in record.items()}


files = cli.family("files", list_, find, search, stat, mkdir, remove, move, copy, chmod, chown, url)
