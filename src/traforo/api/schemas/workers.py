"""What workers tell the control plane."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traforo.api.schemas import fields


class Registration(fields.RequestModel):
    """What a worker says of itself, again with every heartbeat."""

    hostname: Annotated[str, Field(min_length=1, max_length=253, examples=["worker-1"])]
    """Its sandboxes' ids carry the md5 of it."""
    base_url: Annotated[str, Field(min_length=1, max_length=512, examples=["http://worker-1:8081"])]
    """Where clients are sent."""
    hardware_sku: Annotated[str, Field(max_length=128)] = ""
    """Kind of machine."""
    virtualizations: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=32)] = Field(
        default=["container"]
    )
    """What it can isolate with."""
    total_cores: Annotated[float, Field(ge=0, le=65536)] = 0.0
    total_memory_mib: Annotated[int, Field(ge=0, le=2**40)] = 0
    max_live_sandboxes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    live_sandboxes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many it has now."""
    images: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=1000)] = Field(default=[])
    """Images that are ready to start from."""


class RegistrationQuery(fields.QueryModel):
    """Which registration to forget."""

    base_url: Annotated[str, Field(min_length=1, max_length=512, examples=["http://worker-1:8081"])]
    """What the worker registered with."""


class Registered(fields.AnswerModel):
    """Until when a worker counts as available."""

    worker_id: Annotated[str, Field(examples=["worker_1"])]
    lease_ttl_seconds: Annotated[float, Field(examples=[120])]
    heartbeat_interval_seconds: Annotated[float, Field(examples=[30])]
    expires_at: Annotated[fields.Timestamp, Field(examples=["2026-11-21T12:02:00.000Z"])]
