"""Options that several commands share, and how their values become arguments of the SDK."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from traforo.cli import durations, printers

Url = Annotated[str | None, Parameter(help="URL of the server [default: TRAFORO_URL, else http://127.0.0.1:8080].")]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Print JSON.")]
SandboxId = Annotated[str, Parameter(help="Id of the sandbox, or as much of its end as tells it from your others.")]
ExecId = Annotated[str, Parameter(help="Id of the command, as `traforo ps` shows it.")]
Follow = Annotated[
    bool, Parameter(name=["--follow", "-f"], negative="", show_default=False, help="Go on with what comes.")
]
Limit = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Tail = Annotated[
    int | None,
    Parameter(
        name=["--tail", "-n"],
        negative="",
        validator=validators.Number(gte=0),
        help="Only so many lines of what there is already [default: all].",
    ),
]
Interactive = Annotated[
    bool,
    Parameter(
        name=["--interactive", "-i"], negative="", show_default=False, help="Pass the input of this program on to it."
    ),
]
Tty = Annotated[
    bool,
    Parameter(name=["--tty", "-t"], negative="", show_default=False, help="Run it on a terminal as large as this one."),
]
DetachKeys = Annotated[str, Parameter(help="Keys that leave the command running and end this program; empty for none.")]
Words = Annotated[str, Parameter(allow_leading_hyphen=True)]
Env = Annotated[
    Sequence[str],
    Parameter(
        name=["--env", "-e"],
        negative="",
        show_default=False,
        help="`NAME=value`, or `NAME` for its value here. Can be repeated.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a new sandbox is made of. Whatever is not given is left to the server."""

    image: str | None = None
    """Image reference [default: host, the worker's own file system below a private layer]."""
    cpu: float | None = None
    """Processors, 0.01 and up [default: 1]."""
    memory_mib: int | None = None
    """MiB of memory."""
    disk_mib: int | None = None
    """MiB of the writable layer."""
    disk_kind: Literal["tmpfs", "disk"] | None = None
    """Where the writable layer lives: in memory, or on the worker's disk [default: tmpfs]."""
    pids: int | None = None
    """Most processes and threads at once."""
    virtualization: str | None = None
    """Kind of isolation [default: container]."""
    hardware_sku: str | None = None
    """Kind of machine."""
    name: str | None = None
    """A name for people."""
    idle_seconds: Annotated[durations.Option, Parameter(name=["--idle", "--idle-seconds"])] = None
    """Time without activity after which it ends, such as `90`, `30m` or `1h30m` [default: never]."""

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `Sandbox.create`."""
        return {name: getattr(self, name) for name in self.__slots__}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a command starts in a sandbox."""

    cwd: str | None = None
    """Directory to start in [default: the user's home]."""
    user: str | None = None
    """User, a name or a number [default: the image's]."""
    timeout: durations.Option = None
    """Time after which the command and all it started are killed, such as `90` or `5m`; the exit code is 124 then."""


def variables(given: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that `--env` options describe."""
    here = os.environ if environ is None else environ
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not name:
            raise printers.UsageError(f"cannot use --env {item!r}: it names no variable", "write NAME=value")
        if equals:
            found[name] = value
        elif name in here:
            found[name] = here[name]
    return found


def labels(given: Sequence[str]) -> dict[str, str]:
    """Return the metadata that `--metadata` options describe."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise printers.UsageError(f"cannot use --metadata {item!r}", "write NAME=value")
        found[name] = value
    return found


def required(command: tuple[str, ...], example: str) -> tuple[str, ...]:
    """Return the command after `--`, which has to be there."""
    if not command:
        raise printers.UsageError("no command to run", f"write `{example}`")
    return begins_with_name(command)


def begins_with_name(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words that may hold options of another program, and begin with none: that would be a typing error."""
    for word in words[:1]:
        name(word)
    return words


def name(word: str) -> str:
    """Return a word that names something, `-` included, and is no option."""
    if word.startswith("-") and word != "-":
        raise printers.UnknownOption(word)
    return word
