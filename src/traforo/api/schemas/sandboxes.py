"""Sandboxes: made, listed, read, renewed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from traforo.api.schemas import fields
from traforo.domain import errors
from traforo.domain.states import DiskKind, EndReason, Happening, SandboxState, StartType


class SandboxCreate(fields.RequestModel):
    """What to make. Every limit given is enforced; what is left out has the server's default."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": "host", "cpu": 1, "memory_mib": 512, "ttl_seconds": 600}]}
    )

    image: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(fields.no_nul)] = "host"
    """Image to start from: `host`, or a reference that the worker can resolve."""
    cpu: Annotated[float, Field(gt=0, le=65536)] = 1.0
    """Processors, 0.01 and up."""
    memory_mib: Annotated[int, Field(ge=1, le=2**32)] | None = None
    """MiB of memory of all its processes, without swap."""
    disk_mib: Annotated[int, Field(ge=1, le=2**32)] | None = None
    """MiB that it may write."""
    disk_kind: DiskKind = DiskKind.TMPFS
    """Where it writes to: memory (within `memory_mib`), or the worker's disk."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Most processes and threads at once."""
    virtualization: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """How it is isolated; `container` unless the worker is set up otherwise."""
    hardware_sku: Annotated[str, Field(max_length=128)] | None = None
    """Kind of machine to run on."""
    ttl_seconds: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    """Seconds until it expires: 1800 by default, and at most what the worker allows. A lease can be renewed."""
    idle_seconds: Annotated[float, Field(ge=5, le=366 * 86400)] | None = None
    """Seconds without use after which it ends, however long its lease; without it there is no such limit."""
    on_expiry: Literal["kill"] = "kill"
    """What happens when its lease or its idle limit is over."""
    prepare: Annotated[list[Literal["python", "node", "bash"]], Field(max_length=3)] = Field(default_factory=list)
    """Languages whose interpreters are made ready before anybody asks for them. Such sandboxes may themselves be made
    ahead (`start_type` is `warm` then)."""
    env: fields.Env = Field(default_factory=dict)
    """Environment of everything that runs in it."""
    metadata: fields.Metadata = Field(default_factory=dict)
    """Whatever the caller wants to find again."""
    name: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(fields.no_nul)] | None = None
    """For people; need not be unique."""

    @model_validator(mode="after")
    def _fits(self) -> SandboxCreate:
        fields.check_size(self.env, self.metadata)
        return self


class Sandbox(fields.AnswerModel):
    """A sandbox."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    """Routes by itself; never used again."""
    dns_id: Annotated[str, Field(examples=[fields.DNS_ID])]
    """The same id as one DNS label."""
    name: str | None
    image: Annotated[str, Field(examples=["host"])]
    virtualization: Annotated[str, Field(examples=["container"])]
    state: Annotated[SandboxState, Field(examples=["running"])]
    reason: EndReason | None
    """Why it ended; null while it lives."""
    cpu: Annotated[float, Field(examples=[1])]
    """Processors."""
    memory_mib: Annotated[int, Field(examples=[512])]
    disk_mib: Annotated[int, Field(examples=[256])]
    disk_kind: DiskKind
    pids: Annotated[int, Field(examples=[512])]
    metadata: dict[str, str]
    created_at: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    expires_at: Annotated[fields.Timestamp, Field(examples=[fields.EXPIRES_AT])]
    ended_at: fields.Timestamp | None
    idle_seconds: float | None
    """Seconds without use after which it ends; null for no such limit."""
    idle_at: fields.Timestamp | None
    """When that will be if nobody uses it; null where there is no limit, while it is in use, and when it has ended."""
    last_activity_at: fields.Timestamp | None
    """When it was last used: now, while a command runs in the foreground; null where nobody knows any more."""
    limits_enforced: Annotated[list[str], Field(examples=[["cpu", "disk", "memory", "pids"]])]
    """Which of its limits this host enforces, of `cpu`, `disk`, `memory`, `pids`."""


class Timings(fields.AnswerModel):
    """How long each phase of a create took, in milliseconds."""

    accepted_to_admitted: Annotated[float, Field(examples=[0.21])]
    """From the request until room was reserved."""
    admitted_to_ready: Annotated[float, Field(examples=[1.48])]
    """Until the runtime was ready: init answers, and a first command can start."""
    total: Annotated[float, Field(examples=[1.73])]


class CreatedSandbox(Sandbox):
    """A sandbox that can be used at once."""

    connect_url: Annotated[str, Field(examples=["http://127.0.0.1:8081"])]
    """Base URL of its worker, for everything else about it."""
    token: str | None
    """Opens this sandbox and no other; null in `dev` mode."""
    start_type: StartType
    """Which way it came up."""
    timings_ms: Timings


class SandboxQuery(fields.QueryModel):
    """Which sandboxes to list."""

    limit: fields.Limit = 100
    """Most sandboxes to return."""
    cursor: fields.Cursor | None = None
    """`next_cursor` of the page before."""
    state: SandboxState | None = None
    """Only those in this state."""


class SandboxPage(fields.AnswerModel):
    """Some of the caller's sandboxes, newest first."""

    sandboxes: list[Sandbox]
    next_cursor: str | None
    """Gives the next page; null on the last."""


class LeaseQuery(fields.QueryModel):
    """A renewal: of the lease, of the idle limit, or of both."""

    ttl_seconds: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    """Seconds from now until the sandbox expires; without it the lease stays."""
    idle_seconds: Annotated[float, Field(ge=0, le=366 * 86400)] | None = None
    """Seconds without use after which the sandbox ends, from 5; 0 for no such limit; without it the limit stays."""

    @model_validator(mode="after")
    def _renews(self) -> LeaseQuery:
        if self.ttl_seconds is None and self.idle_seconds is None:
            raise errors.InvalidRequest(
                "cannot renew nothing: 'ttl_seconds', 'idle_seconds' or both are required", field="ttl_seconds"
            )
        return self


class Lease(fields.AnswerModel):
    """Until when a sandbox may live."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    expires_at: Annotated[fields.Timestamp, Field(examples=[fields.EXPIRES_AT])]
    idle_seconds: float | None
    """Its idle limit; null for none."""
    token: str | None = None
    """A token that ends no earlier than the new lease; null in `dev` mode, or where the first one does as well."""


class CreateQuery(fields.QueryModel):
    """What the control plane adds to a create that it sends on."""

    placement: Annotated[str, Field(max_length=8192)] | None = None
    """Signed by the control plane, for one use."""
    placement_retry: Annotated[int, Field(ge=0, le=100)] = 0
    """How often this create was placed before."""


class MetricsQuery(fields.QueryModel):
    """What to measure."""

    series: bool = False
    """Give what was measured before as well."""
    since: Annotated[float, Field(ge=0)] | None = None
    """Only what was measured after this time, in Unix seconds."""


class Sample(fields.AnswerModel):
    """What a sandbox used at one moment. Null is what this host cannot tell."""

    ts: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    cpu_seconds: Annotated[float | None, Field(examples=[1.25])]
    """Processor time of everything in it since it was made."""
    cpu_percent: Annotated[float | None, Field(examples=[42.0])]
    """Of one processor (200 is two), since the sample before; in the first one since it was made."""
    memory_bytes: Annotated[int | None, Field(examples=[8_388_608])]
    """Page cache and tmpfs included."""
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    disk_bytes: int | None
    """Of its writable layer."""
    disk_limit_bytes: int | None
    pids: Annotated[int | None, Field(examples=[3])]
    """Processes and threads."""
    pids_limit: int | None
    network_received_bytes: int | None
    """On interfaces other than loopback."""
    network_sent_bytes: int | None


class Metrics(fields.AnswerModel):
    """What a sandbox uses."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    now: Sample | None
    """Null when it does not run."""
    series: list[Sample]
    """Every ten seconds for an hour at most, oldest first. It is measured for five minutes after somebody asked."""


class EventQuery(fields.QueryModel):
    """Which events to read."""

    cursor: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """`next_cursor` of the page before."""
    wait: Annotated[float, Field(ge=0, le=60)] = 0
    """Seconds to wait for an event where there is none yet."""
    limit: fields.Limit = 100
    """Most events to return."""


class Event(fields.AnswerModel):
    """One thing that happened to a sandbox."""

    cursor: Annotated[int, Field(examples=[0])]
    ts: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    type: Annotated[Happening, Field(examples=["exec_ended"])]
    facts: Annotated[dict[str, Any], Field(examples=[{"exec_id": fields.EXEC_ID, "exit_code": 0}])]
    """More about it, by kind."""


class EventPage(fields.AnswerModel):
    """Some events of a sandbox, oldest first."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    events: list[Event]
    next_cursor: Annotated[int, Field(examples=[1])]
    """Where to go on, now or later."""
    has_more: bool
    """There are more now, or more may come."""
    dropped: int
    """Events between the cursor and the first of this page that are no longer kept."""


class LogQuery(fields.QueryModel):
    """Which part of the log to read."""

    cursor: Annotated[str, Field(max_length=128)] | None = None
    """`next_cursor` of the page before, or the cursor of an entry."""
    limit: fields.Limit = fields.MAX_PAGE
    """Most entries to return; with `follow` there is no limit."""
    follow: bool = False
    """Answer with one entry a line (`application/x-ndjson`) until the sandbox has ended."""
    stream: Literal["all", "stdout", "stderr", "events"] = "all"
    """Which kind of entries."""
    encoding: fields.Encoding = "utf8"
    """`base64` gives the exact bytes of output."""


class LogEntry(fields.AnswerModel):
    """One piece of output of some exec, or an event."""

    cursor: Annotated[str, Field(examples=["1763726400000.1.01K6Z8Q4T3V7WXYZ0123456789.0"])]
    """Names this entry; reading goes on behind it."""
    ts: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    type: Literal["stdout", "stderr", "result", "gap", "event"]
    exec_id: Annotated[str | None, Field(examples=[fields.EXEC_ID])]
    data: Annotated[str, Field(examples=["hello\n"])]
    """Output; of an event its JSON text `{"type", ...facts}`; of a gap the number of bytes that are no longer kept."""


class LogPage(fields.AnswerModel):
    """Some entries, oldest first."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    entries: list[LogEntry]
    next_cursor: str
    """Where to go on, now or later; empty when nothing was ever logged."""
    has_more: bool
    """There are more now, or more may come."""
