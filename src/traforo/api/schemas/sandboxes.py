"""Sandboxes: made, listed, read, renewed."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from traforo.api.schemas import fields
from traforo.domain.states import DiskKind, EndReason, SandboxState, StartType


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
    """A renewal."""

    ttl_seconds: Annotated[float, Field(gt=0, le=366 * 86400)]
    """Seconds from now until the sandbox expires."""


class Lease(fields.AnswerModel):
    """Until when a sandbox may live."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    expires_at: Annotated[fields.Timestamp, Field(examples=[fields.EXPIRES_AT])]
    token: str | None = None
    """A token that ends no earlier than the new lease; null in `dev` mode, or where the first one does as well."""


class CreateQuery(fields.QueryModel):
    """What the control plane adds to a create that it sends on."""

    placement: Annotated[str, Field(max_length=8192)] | None = None
    """Signed by the control plane, for one use."""
    placement_retry: Annotated[int, Field(ge=0, le=100)] = 0
    """How often this create was placed before."""
