"""HTTP routes of sandboxes at the control plane: a create is placed, a list is put together, all else is sent on.

No sandbox is made, read or changed here. What a redirect says follows from registered workers alone; see `redirects`.
"""

from __future__ import annotations

from typing import Annotated
from urllib import parse

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from traforo.api import answers, bodies, operations, principals, problems, requests, schemas
from traforo.control import contexts, inquiries, listings, placements, redirects
from traforo.domain import errors, workers
from traforo.telemetry import traces

PLACED = "placed"
"""Result of a placement that found a worker; the others are `placements.Reason`."""


class PlacementQuery(schemas.CreateQuery):
    """What a worker adds to a create that it sends back, because it had no room after all."""

    refused_by: Annotated[str, Field(max_length=64)] = ""
    """The worker that sends it back. Its `placement` stands for the credential, which clients drop on the way."""


class SandboxList(schemas.SandboxPage):
    """Some of the caller's sandboxes on all workers, newest first."""

    incomplete: bool
    """Some workers did not answer: there may be more sandboxes."""
    missing_workers: list[str]
    """Which."""


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["sandboxes"])

    @router.post(
        "/sandboxes",
        **operations.describe(
            summary="Place a sandbox",
            request=schemas.SandboxCreate,
            query=PlacementQuery,
            answers={307: None},
            failures=[errors.NoCapacity, errors.WorkerUnavailable],
        ),
    )
    async def create(request: Request) -> Response:
        """Sends the create on to a worker, which makes the sandbox and answers 201."""
        query = bodies.query(request, PlacementQuery)
        creator = _creator(context, request, query)
        wanted = await bodies.read_json(request, schemas.SandboxCreate)
        member = _placed(context, wanted, query)
        return answers.redirect(_create_url(context, member.worker, creator, query), traces.headers())

    @router.get(
        "/sandboxes",
        **operations.describe(
            summary="List the caller's sandboxes on all workers, newest first",
            query=schemas.SandboxQuery,
            answers={200: SandboxList},
        ),
    )
    async def list_all(request: Request) -> Response:
        query = bodies.query(request, schemas.SandboxQuery)
        listings.cursor(query.cursor)
        authorization = request.headers.get("authorization")
        principal = principals.client(context.authority, authorization)
        question = inquiries.Question(
            query={name: str(value) for name, value in query.model_dump(mode="json", exclude_none=True).items()},
            headers={"x-request-id": requests.request_id(request)} | traces.headers(),
            client_id=principal.client_id,
            authorization=authorization,
        )
        found = await context.inquiries.sandboxes(context.registrar.members(), question)
        page = listings.merge(found.pages, query.limit)
        return answers.json(
            {
                "sandboxes": [row.sandbox for row in page.rows],
                "next_cursor": page.next_cursor,
                "incomplete": bool(found.missing),
                "missing_workers": found.missing,
            }
        )

    @router.get(
        "/sandboxes/{sandbox_id}",
        **operations.describe(
            summary="Find the worker of a sandbox",
            answers={307: None},
            failures=[errors.MalformedId, errors.NotFound, errors.WorkerUnavailable],
            public=True,
        ),
    )
    async def find(request: Request, sandbox_id: str) -> Response:  # noqa: ARG001 - read from the raw path, not decoded
        """Any other method, and everything below this path, is sent on likewise. No credential is looked at."""
        return _sent_on(context, request.scope)

    for path in ("/sandboxes/{sandbox_id}", "/sandboxes/{sandbox_id}/{rest:path}"):
        router.routes.append(Route(path, _SendOn(context), include_in_schema=False))
    return router


class _SendOn:
    """Sends any request on, whatever its method: a plain ASGI application, since routes of functions name methods."""

    def __init__(self, context: contexts.Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _sent_on(self._context, scope)(scope, receive, send)


def _creator(context: contexts.Context, request: Request, query: PlacementQuery) -> principals.Principal:
    """Return who creates. Nothing is used up: that happens where the sandbox is made. Raises `Unauthenticated`."""
    authorization = request.headers.get("authorization")
    if context.authority.mode == "prod" and authorization is None and query.placement and query.refused_by:
        placed = context.authority.verify_placement(query.placement, query.refused_by)
        return principals.Principal(placed.client_id, "placement", jti=placed.jti, expires_at=placed.token_expires_at)
    return principals.client(context.authority, authorization)


def _placed(context: contexts.Context, wanted: schemas.SandboxCreate, query: PlacementQuery) -> workers.Member:
    """Choose a worker, and count what came of it. Raises `NoCapacity` or `WorkerUnavailable`."""
    started = context.clock.monotonic()
    chosen = context.registrar.candidates.choose(
        placements.Request(
            virtualization=wanted.virtualization or "",
            hardware_sku=wanted.hardware_sku or "",
            retry=query.placement_retry,
            refused_by=query.refused_by,
        ),
        now=context.clock.now(),
        retry_max=context.settings.placement_retry_max,
    )
    result = chosen.reason if isinstance(chosen, placements.Refusal) else PLACED
    elapsed = context.clock.monotonic() - started
    context.metrics.control_placement_duration_seconds.labels(result=result).observe(elapsed)
    if isinstance(chosen, placements.Refusal):
        error = _refused(chosen.reason, wanted)
        counter = context.metrics.control_no_capacity_total
        counter.labels(status_code=str(problems.status(error)), reason=chosen.reason).inc()
        raise error
    context.metrics.control_placement_retry.observe(query.placement_retry)
    return chosen


def _refused(reason: placements.Reason, wanted: schemas.SandboxCreate) -> errors.TraforoError:
    match reason:
        case placements.Reason.NO_WORKER:
            kind = f" that offers {wanted.virtualization!r}" if wanted.virtualization else ""
            return errors.WorkerUnavailable(f"cannot place the sandbox: no worker{kind} is available", reason=reason)
        case placements.Reason.NO_MATCHING_HARDWARE_SKU:
            message = f"cannot place the sandbox: no available worker is {wanted.hardware_sku!r}"
            return errors.NoCapacity(message, reason=reason, resource="hardware_sku")
        case placements.Reason.PLACEMENT_RETRY_EXHAUSTED:
            message = "cannot place the sandbox: the workers that could take it have refused it"
            return errors.NoCapacity(message, reason=reason, resource="workers")


def _create_url(
    context: contexts.Context, worker: workers.Worker, creator: principals.Principal, query: PlacementQuery
) -> str:
    parameters: dict[str, str] = {}
    if creator.client_id is not None and creator.jti is not None:
        placement = context.authority.sign_placement(
            creator.client_id, creator.jti, creator.expires_at, worker.worker_id
        )
        if placement is not None:
            parameters["placement"] = placement
    if query.placement_retry:
        parameters["placement_retry"] = str(query.placement_retry)
    return f"{worker.base_url}/sandboxes" + (f"?{parse.urlencode(parameters)}" if parameters else "")


def _sent_on(context: contexts.Context, scope: Scope) -> Response:
    """Answer with the same target at its owner. Raises `MalformedId`, `NotFound`, `WorkerUnavailable`."""
    target = redirects.target(scope)
    owner = context.registrar.owner(redirects.sandbox_id(target).worker)
    return answers.redirect(
        redirects.location(owner.worker.base_url, target, scheme=scope.get("scheme", "")), traces.headers()
    )
