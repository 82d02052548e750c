"""`traforo ps`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from traforo.cli import names, options, printers

if TYPE_CHECKING:
    from traforo.sdk import ExecResult

COLUMNS = ("exec id", "tag", "pid", "tty", "status", "started", "ran", "command")
SHOWN = 60


def ps(
    sandbox: options.SandboxId,
    /,
    *,
    all: Annotated[bool, Parameter(name=["--all", "-a"], negative="", show_default=False)] = False,  # noqa: A002 - the name of the option
    tag: str | None = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """List the commands of a sandbox.

    Args:
        sandbox: Id of the sandbox.
        all: Those too that have ended.
        tag: Only those with this tag.
        quiet: Print ids alone, one a line.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        found = names.sandbox(sandbox, client).list_execs(tag=tag, status=None if all else "running")
    if json:
        hidden = {"stdout", "stderr", "output", "stdout_truncated", "stderr_truncated"}
        records = [results.as_json(item) for item in found]
        printers.document({"execs": [{k: v for k, v in item.items() if k not in hidden} for item in records]})
    elif quiet:
        for item in found:
            print(printers.shown(item.exec_id))
    else:
        now = datetime.now(UTC)
        printers.table(COLUMNS, [_row(item, now) for item in found])


def _row(item: ExecResult, now: datetime) -> tuple[object, ...]:
    ended = f"{item.end} ({item.exit_code})" if item.exit_code is not None else item.end
    started = None if item.started_at is None else printers.distance(item.started_at, now)
    text = item.command if isinstance(item.command, str) else shlex.join(item.command)
    line = " ".join(text.split())
    short = line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
    tty = "yes" if item.tty else "no"
    return item.exec_id, item.tag, item.pid, tty, ended or item.status, started, _ran(item, now), short


def _ran(item: ExecResult, now: datetime) -> str | None:
    """Return how long it ran, or has run so far."""
    if item.duration_ms is not None:
        return printers.span(item.duration_ms / 1000)
    if item.started_at is None or item.status != "running":
        return None
    return printers.span(max(0.0, (now - item.started_at).total_seconds()))
