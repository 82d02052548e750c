"""What can be seen of a sandbox from outside: what it uses, what happened to it, what it wrote. Records and how to
read them; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from traforo.sdk import answers


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox used at one moment. None where the host cannot tell."""

    ts: datetime | None
    cpu_seconds: float | None
    """Of all its processes since it was made."""
    cpu_percent: float | None
    """Lately; 100 is one processor."""
    memory_bytes: int | None
    """The files of a tmpfs disk included."""
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    disk_bytes: int | None
    """Used of its writable layer."""
    disk_limit_bytes: int | None
    pids: int | None
    """Processes and threads."""
    pids_limit: int | None
    network_received_bytes: int | None
    """On interfaces other than loopback."""
    network_sent_bytes: int | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a sandbox uses now, and what it used lately where that was asked for."""

    now: Usage | None
    """None when it does not run."""
    series: Sequence[Usage] = ()
    """Oldest first, a sample every 10 s, an hour at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a sandbox."""

    cursor: int | str
    """Position of this event."""
    ts: datetime | None
    type: str
    """`created`, `ready`, `lease_renewed`, `exec_started`, `exec_ended`, `oom`, `stopped`, …"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More about it, by kind."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A piece of output of one of a sandbox's commands, or an event, in the order of time."""

    cursor: int | str
    """Position of this entry."""
    ts: datetime | None
    type: str
    """`stdout`, `stderr`, `result`, `event`, or `gap` where output is missing."""
    exec_id: str | None
    data: str
    """Text of the output; of an event its JSON, of a gap the number of bytes that are no longer kept."""


def metrics(body: Mapping[str, Any]) -> Metrics:
    """Read the metrics of a sandbox."""
    series = answers.objects(body, "series") if body.get("series") is not None else ()
    now = answers.optional(body, "now", dict)
    return Metrics(None if now is None else _usage(now), tuple(_usage(item) for item in series))


def _usage(body: Mapping[str, Any]) -> Usage:
    def size(name: str) -> int | None:
        value = answers.optional(body, name, int, float)
        return None if value is None else int(value)

    return Usage(
        ts=answers.moment(body.get("ts")),
        cpu_seconds=answers.optional(body, "cpu_seconds", int, float),
        cpu_percent=answers.optional(body, "cpu_percent", int, float),
        memory_bytes=size("memory_bytes"),
        memory_limit_bytes=size("memory_limit_bytes"),
        memory_peak_bytes=size("memory_peak_bytes"),
        disk_bytes=size("disk_bytes"),
        disk_limit_bytes=size("disk_limit_bytes"),
        pids=size("pids"),
        pids_limit=size("pids_limit"),
        network_received_bytes=size("network_received_bytes"),
        network_sent_bytes=size("network_sent_bytes"),
    )


def events(body: Mapping[str, Any]) -> tuple[Sequence[Event], str | None]:
    """Read one page of events and the cursor of the next."""
    return [_event(item) for item in answers.objects(body, "events")], answers.next_cursor(body)


def _event(body: Mapping[str, Any]) -> Event:
    return Event(
        cursor=answers.field(body, "cursor", int, str),
        ts=answers.moment(body.get("ts")),
        type=answers.field(body, "type", str),
        facts=answers.mapping(body, "facts"),
    )


def logs(body: Mapping[str, Any]) -> tuple[Sequence[LogEntry], str | None]:
    """Read one page of log entries and the cursor of the next."""
    return [log_entry(item) for item in answers.objects(body, "entries")], answers.next_cursor(body)


def log_entry(body: Mapping[str, Any]) -> LogEntry:
    """Read one log entry."""
    return LogEntry(
        cursor=answers.field(body, "cursor", int, str),
        ts=answers.moment(body.get("ts")),
        type=answers.field(body, "type", str),
        exec_id=answers.optional(body, "exec_id", str),
        data=answers.string(body, "data"),
    )
