"""HTTP routes of sandboxes at the worker: create, list, read, renew, delete.

A route reads the request, asks the supervisor and writes the answer; what may happen is decided elsewhere. Answers
follow `traforo.api.schemas`, built by hand because every create and delete passes here.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import clocks, errors, specs, states
from traforo.telemetry import logs
from traforo.worker.capacity import resources
from traforo.worker.routes import contexts
from traforo.worker.sandboxes import entries, leases, repeats, starts

REPEAT_HEADER = "idempotency-key"
"""Header by which a caller makes a create repeatable."""


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["sandboxes"])

    @router.post(
        "/sandboxes",
        **operations.describe(
            summary="Make a sandbox",
            request=schemas.SandboxCreate,
            query=schemas.CreateQuery,
            answers={201: schemas.CreatedSandbox},
            failures=[
                errors.NotFound,
                errors.Conflict,
                errors.StartFailed,
                errors.RateLimited,
                errors.NoCapacity,
                errors.WorkerUnavailable,
            ],
        ),
    )
    async def create(request: Request) -> Response:
        """Answers when a first command can start. With the header `Idempotency-Key` it can be sent again safely."""
        accepted_at = context.clock.monotonic()
        query = bodies.query(request, schemas.CreateQuery)
        creator = context.door.creator(request, query.placement)
        wanted = await bodies.read_json(request, schemas.SandboxCreate, context.settings.max_body_bytes)
        key = request.headers.get(REPEAT_HEADER)
        creation = starts.Creation(
            spec=_spec(context, wanted),
            accepted_at=accepted_at,
            owner=creator.client_id,
            jti=creator.jti,
            jti_expires_at=creator.expires_at,
            use_token=lambda: context.door.use(creator),
            repeat=None if key is None else repeats.Repeat(repeats.check(key), _fingerprint(wanted)),
        )
        entry = await context.supervisor.create(creation)
        logs.bind(sandbox_id=entry.text_id)
        context.interpreters.prepare(entry)
        answer = _sandbox(context, entry)
        answer["connect_url"] = context.place.base_url
        answer["token"] = _token(context, entry)
        answer["start_type"] = entry.start_type
        answer["timings_ms"] = entry.timings_ms
        return answers.json(answer, 201)

    @router.get(
        "/sandboxes",
        **operations.describe(
            summary="List the caller's sandboxes, newest first",
            query=schemas.SandboxQuery,
            answers={200: schemas.SandboxPage},
        ),
    )
    async def list_all(request: Request) -> Response:
        query = bodies.query(request, schemas.SandboxQuery)
        owner = contexts.owner(context.door.caller(request))
        page = context.supervisor.roster.page(owner, state=query.state, limit=query.limit, cursor=query.cursor)
        return answers.json(
            {"sandboxes": [_sandbox(context, entry) for entry in page.entries], "next_cursor": page.next_cursor}
        )

    @router.get(
        "/sandboxes/{sandbox_id}",
        **operations.describe(
            summary="Read a sandbox, for an hour after its end too",
            answers={200: schemas.Sandbox},
            failures=[errors.Forbidden, errors.NotFound],
        ),
    )
    async def read(request: Request, sandbox_id: str) -> Response:
        return answers.json(_sandbox(context, context.entry(request, sandbox_id, live=False, touch=False)))

    @router.patch(
        "/sandboxes/{sandbox_id}/lease",
        **operations.describe(
            summary="Renew a lease",
            query=schemas.LeaseQuery,
            answers={200: schemas.Lease},
            failures=[errors.Forbidden, errors.NotFound, errors.Conflict],
        ),
    )
    async def renew(request: Request, sandbox_id: str) -> Response:
        """The lease then ends in `ttl_seconds` from now, whether that is later or sooner than before. With
        `idle_seconds` the idle limit is set, or taken away with 0.
        """
        entry = context.entry(request, sandbox_id, live=False)
        query = bodies.query(request, schemas.LeaseQuery)
        expires_at = await context.supervisor.renew(entry, query.ttl_seconds, query.idle_seconds)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                "expires_at": clocks.rfc3339(expires_at),
                "idle_seconds": entry.idle_seconds,
                "token": _token(context, entry),
            }
        )

    @router.delete(
        "/sandboxes/{sandbox_id}",
        **operations.describe(
            summary="End a sandbox",
            answers={204: None},
            failures=[errors.Forbidden, errors.NotFound],
        ),
    )
    async def delete(request: Request, sandbox_id: str) -> Response:
        """Answers when it is dead, and the same when it was dead already."""
        entry = context.entry(request, sandbox_id, live=False)
        await context.supervisor.stop(entry, states.EndReason.DELETED)
        return answers.nothing()

    return router


def _spec(context: contexts.Context, wanted: schemas.SandboxCreate) -> specs.SandboxSpec:
    """Return the complete spec of what was asked for. Raises `InvalidRequest`, `NoCapacity`."""
    settings = context.settings
    if wanted.hardware_sku and wanted.hardware_sku != settings.hardware_sku:
        raise errors.NoCapacity(
            f"cannot admit the sandbox: this worker is no {wanted.hardware_sku!r}", resource="hardware_sku"
        )
    wish = resources.Wish(
        cpu=wanted.cpu if "cpu" in wanted.model_fields_set else None,
        memory_mib=wanted.memory_mib,
        disk_mib=wanted.disk_mib,
        disk_kind=wanted.disk_kind,
        pids=wanted.pids,
    )
    return specs.SandboxSpec(
        image=wanted.image,
        virtualization=wanted.virtualization or settings.virtualization,
        resources=resources.complete(wish, context.host, default_pids=settings.default_pids),
        ttl_seconds=leases.ttl(wanted.ttl_seconds, default=settings.default_ttl, most=settings.max_ttl),
        env=wanted.env,
        metadata=wanted.metadata,
        name=wanted.name,
        hardware_sku=wanted.hardware_sku,
        idle_seconds=leases.idle(wanted.idle_seconds, most=settings.max_ttl),
        on_expiry=wanted.on_expiry,
        prepare=tuple(dict.fromkeys(wanted.prepare)),
    )


def _fingerprint(wanted: schemas.SandboxCreate) -> str:
    """Return a digest of everything that was asked for, the same however it was spelled."""
    values = msgspec.json.decode(answers.encode(wanted))
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()


def _token(context: contexts.Context, entry: entries.Entry) -> str | None:
    """Return a token for one sandbox that holds as long as any lease that can be asked for now."""
    if entry.owner is None:
        return None
    until = context.clock.now() + context.settings.max_ttl
    return context.authority.sign_sandbox_token(entry.text_id, entry.owner, until)


def _sandbox(context: contexts.Context, entry: entries.Entry) -> dict[str, Any]:
    """Return what `schemas.Sandbox` describes."""
    spec, has = entry.spec, entry.spec.resources
    idle_at, used_at = None, entry.last_activity_at
    if entry.ended_at is None:
        used_at = entry.activity.last()
        if entry.idle_seconds is not None and not entry.activity.holds:
            idle_at = clocks.rfc3339(used_at + entry.idle_seconds)
    return {
        "sandbox_id": entry.text_id,
        "dns_id": entry.id.dns,
        "name": spec.name,
        "image": spec.image,
        "virtualization": spec.virtualization,
        "state": entry.state,
        "reason": entry.reason if entry.ended_at is not None else None,
        "cpu": has.cpu,
        "memory_mib": has.memory_mib,
        "disk_mib": has.disk_mib,
        "disk_kind": has.disk_kind,
        "pids": has.pids,
        "metadata": spec.metadata,
        "created_at": clocks.rfc3339(entry.created_at),
        "expires_at": clocks.rfc3339(entry.expires_at),
        "ended_at": None if entry.ended_at is None else clocks.rfc3339(entry.ended_at),
        "idle_seconds": entry.idle_seconds,
        "idle_at": idle_at,
        "last_activity_at": None if used_at is None else clocks.rfc3339(used_at),
        "limits_enforced": context.supervisor.limits_enforced(spec.virtualization),
    }
