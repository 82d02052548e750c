"""`traforo list`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from traforo.cli import names, options, printers

if TYPE_CHECKING:
    from traforo.sdk import SandboxInfo

State = Literal["pending", "starting", "running", "paused", "hibernated", "stopping", "stopped", "failed", "missing"]
ENDED = frozenset({"stopped", "failed"})
COLUMNS = ("id", "name", "image", "state", "cpu", "mib", "created", "expires")


def list(  # noqa: A001 - the name of the command
    *,
    state: State | None = None,
    all: Annotated[bool, Parameter(name=["--all", "-a"], negative="", show_default=False)] = False,  # noqa: A002 - the name of the option
    limit: options.Limit = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """List your sandboxes, newest first.

    An id is shown by its end, which is enough for every command here; `-q` and `--json` tell it whole.

    Args:
        state: Only those in this state.
        all: Those too that ended within the last hour.
        limit: At most so many.
        quiet: Print ids alone, one a line.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Sandbox, results

    listed = Sandbox.list(state=state, limit=limit if all or state else None, url=url)
    found = [info for info in listed if all or state or info.state not in ENDED][:limit]
    if listed.missing_workers:
        printers.note(
            f"note: without the sandboxes of workers that did not answer: {', '.join(listed.missing_workers)}"
        )
    if json:
        printers.document(results.as_json({"sandboxes": found, "missing_workers": listed.missing_workers}))
    elif quiet:
        for info in found:
            print(printers.shown(info.sandbox_id))
    else:
        now = datetime.now(UTC)
        printers.table(COLUMNS, [_row(info, now) for info in found])


def _row(info: SandboxInfo, now: datetime) -> tuple[object, ...]:
    state = f"{info.state} ({info.reason})" if info.reason else info.state
    created = printers.distance(info.created_at, now)
    expires = None if info.state in ENDED else printers.distance(info.expires_at, now)
    cpu = f"{info.cpu:g}"
    return names.short(info.sandbox_id), info.name, info.image, state, cpu, info.memory_mib, created, expires
