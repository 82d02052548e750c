"""`traforo logs`."""

from __future__ import annotations

import json as codec
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from traforo.cli import interrupts, names, options, printers, streams, tails

if TYPE_CHECKING:
    from traforo.sdk import Exec, LogEntry


def logs(
    sandbox: options.SandboxId,
    command: str | None = None,
    /,
    *,
    follow: options.Follow = False,
    tail: options.Tail = None,
    cursor: str | None = None,
    stream: Literal["stdout", "stderr"] | None = None,
    timestamps: Annotated[bool, Parameter(name=["--timestamps", "-t"], negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Print what the commands of a sandbox wrote.

    In the order of time, stdout to stdout and stderr to stderr, as far as the server keeps it; of one command, exact to
    the byte, or of all: `traforo logs -f --tail 10 $ID`. With `-f` until it has ended. What happened to the sandbox
    itself is in `traforo events`.

    Args:
        sandbox: Id of the sandbox.
        command: Id of one command [default: all].
        follow: Go on with what comes.
        tail: Only so many lines of what there is already [default: all].
        cursor: Only what comes after the entry with this cursor, which `--json` tells.
        stream: Only this one.
        timestamps: Begin each piece with its time and the id of its command.
        url: URL of the server.
        json: Print JSON, one object a line.
    """
    from traforo.sdk import Client

    with interrupts.handled(), Client(url) as client:
        found = names.sandbox(sandbox, client)
        wanted: set[str] = {stream} if stream else {"stdout", "stderr"}
        try:
            if command is not None and cursor is None and not (timestamps or json):
                _one(found.get_exec(command), wanted, follow=follow, tail=tail)
                return 0
            kept = None if tail is None else tails.Tail(tail)
            for entry in found.logs(follow=follow and kept is None, stream=stream, cursor=cursor):
                cursor = str(entry.cursor)
                if _is_wanted(entry, wanted, command):
                    _print(entry, json=json, timestamps=timestamps, kept=kept)
            if kept is None:
                return 0
            kept.write()
            for entry in found.logs(follow=True, stream=stream, cursor=cursor) if follow else ():
                if _is_wanted(entry, wanted, command):
                    _print(entry, json=json, timestamps=timestamps)
        except interrupts.Interrupted as error:
            return error.exit_code
    return 0


def _is_wanted(entry: LogEntry, wanted: set[str], command: str | None) -> bool:
    return entry.type in {*wanted, "gap"} and command in {None, entry.exec_id}


def _one(execution: Exec, wanted: set[str], *, follow: bool, tail: int | None = None) -> None:
    """Print the output of one command, up to its end or to what there is now."""
    if tail is not None:
        cursor = tails.written(execution, tail, wanted)
        for frame in execution.output(cursor) if follow else ():
            _write(frame.type, frame.data, wanted)
        return
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


def _print(entry: LogEntry, *, json: bool, timestamps: bool, kept: tails.Tail | None = None) -> None:
    """Print an entry, or keep it in case it is among the last."""
    from traforo.sdk import results

    stream, text = entry.type, entry.data
    if json:
        stream, text = "stdout", codec.dumps(results.as_json(entry)) + "\n"
    elif entry.type == "gap":
        _gone(text)
        return
    elif timestamps:
        ts = results.as_json(entry.ts) if entry.ts else "-"
        text = "".join(f"{ts} {entry.exec_id or '-'} {line}" for line in text.splitlines(keepends=True))
    data = text.encode(errors="surrogateescape")
    if kept is None:
        _write(stream, data, {"stdout", "stderr"})
    else:
        kept.add(stream, data)
