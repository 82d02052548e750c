"""`traforo list`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from traforo.cli import options, printers

if TYPE_CHECKING:
    from traforo.sdk import SandboxInfo

ENDED = frozenset({"stopped", "failed"})
COLUMNS = ("sandbox id", "name", "image", "state", "cpu", "mib", "created", "expires")


def list(  # noqa: A001 - the name of the command
    *,
    state: str | None = None,
    all: Annotated[bool, Parameter(name=["--all", "-a"], negative="", show_default=False)] = False,  # noqa: A002 - the name of the option
    limit: int | None = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """List your sandboxes, newest first.

    Args:
        state: Only those in this state, such as `running`.
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
    return info.sandbox_id, info.name, info.image, state, f"{info.cpu:g}", info.memory_mib, created, expires
