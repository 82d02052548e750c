"""`traforo logs`."""

from __future__ import annotations

import json as codec
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from traforo.cli import interrupts, options, printers, streams

if TYPE_CHECKING:
    from traforo.sdk import Exec, LogEntry


def logs(
    sandbox: options.SandboxId,
    command: str | None = None,
    /,
    *,
    follow: options.Follow = False,
    stream: Literal["stdout", "stderr"] | None = None,
    timestamps: Annotated[bool, Parameter(name=["--timestamps", "-t"], negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Print what the commands of a sandbox wrote.

    In the order of time, stdout to stdout and stderr to stderr, as far as the server keeps it; of one command, exact to
    the byte, or of all. With `-f` until it has ended. What happened to the sandbox itself is in `traforo events`.

    Args:
        sandbox: Id of the sandbox.
        command: Id of one command [default: all].
        follow: Go on with what comes.
        stream: Only this one.
        timestamps: Begin each piece with its time and the id of its command.
        url: URL of the server.
        json: Print JSON, one object a line.
    """
    from traforo.sdk import Client, Sandbox

    with interrupts.handled(), Client(url) as client:
        found = Sandbox.connect(sandbox, client=client)
        wanted: set[str] = {stream} if stream else {"stdout", "stderr"}
        try:
            if command is not None and not (timestamps or json):
                _one(found.get_exec(command), wanted, follow=follow)
                return 0
            for entry in found.logs(follow=follow, stream=stream):
                if entry.type not in {*wanted, "gap"} or (command is not None and entry.exec_id != command):
                    continue
                _print(entry, json=json, timestamps=timestamps)
        except interrupts.Interrupted as error:
            return error.exit_code
    return 0


def _one(execution: Exec, wanted: set[str], *, follow: bool) -> None:
    """Print the output of one command, up to its end or to what there is now."""
    limit = None if follow else execution.result()
    running = limit is not None and limit.status == "running"
    for frame in execution.written() if running else execution.output():
        _write(frame.type, frame.data, wanted)
    if execution.dropped:
        _gone(str(execution.dropped))


def _gone(count: str) -> None:
    printers.note(f"note: {count or 'some'} bytes of older output were gone before they could be read")


def _write(kind: str, data: bytes, wanted: set[str]) -> None:
    if kind in wanted:
        stream = sys.stdout if kind == "stdout" else sys.stderr
        streams.write_whole(stream.fileno(), data)


def _print(entry: LogEntry, *, json: bool, timestamps: bool) -> None:
    from traforo.sdk import results

    if json:
        print(codec.dumps(results.as_json(entry)), flush=True)
        return
    text = entry.data
    if entry.type == "gap":
        _gone(text)
        return
    if timestamps:
        ts = results.as_json(entry.ts) if entry.ts else "-"
        text = "".join(f"{ts} {entry.exec_id or '-'} {line}" for line in text.splitlines(keepends=True))
    _write(entry.type, text.encode(errors="surrogateescape"), {"stdout", "stderr"})
