"""The two questions before anything is done inside a sandbox: whether it runs, and with whose rights."""

from __future__ import annotations

from traforo.domain import errors
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries


def files(entry: entries.Entry) -> contract.Files:
    """Return the files of a sandbox. Raises `Conflict` when it does not run."""
    if entry.running is None:
        text = f"cannot use the files: the sandbox is {entry.state.value}"
        raise errors.Conflict(text, state=entry.state.value)
    return entry.running.files


def user(entry: entries.Entry, asked: str | None) -> str:
    """Return whose rights to use: the image's default user by default."""
    return asked or entry.rootfs.user
