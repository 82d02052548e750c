"""HTTP routes that workers call: register, which is the heartbeat as well, and leave.

Whoever registers gets sandboxes and the clients of its host name, so in `prod` mode a worker proves with a token of one
use that it is the one in the path.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, principals, schemas
from traforo.control import contexts, registrations
from traforo.domain import clocks, errors

HEARTBEATS_PER_LEASE = 4
"""A worker may miss this many heartbeats less one."""
_PATH = "/internal/workers/{worker_id}/registration"


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["workers"])

    @router.put(
        _PATH,
        **operations.describe(
            summary="Register a worker, or renew its lease",
            request=schemas.Registration,
            answers={200: schemas.Registered},
            failures=[errors.Conflict, errors.RateLimited, errors.NoCapacity],
        ),
    )
    async def register(request: Request, worker_id: str) -> Response:
        """Answers when the registration would survive a restart of the control plane."""
        _admit(context, request, worker_id)
        body = await bodies.read_json(request, schemas.Registration)
        member = await context.registrar.register(registrations.worker(worker_id, body), body.live_sandboxes)
        return answers.json(
            {
                "worker_id": worker_id,
                "lease_ttl_seconds": context.registrar.lease_ttl,
                "heartbeat_interval_seconds": context.registrar.lease_ttl / HEARTBEATS_PER_LEASE,
                "expires_at": clocks.rfc3339(member.lease.expires_at),
            }
        )

    @router.delete(
        _PATH,
        **operations.describe(
            summary="Forget a worker",
            query=schemas.RegistrationQuery,
            answers={204: None},
            failures=[errors.RateLimited],
        ),
    )
    async def deregister(request: Request, worker_id: str) -> Response:
        """Answers the same when nobody was registered, and when somebody else is by now: a worker of the same id that
        registered with another base URL stays.
        """
        _admit(context, request, worker_id)
        query = bodies.query(request, schemas.RegistrationQuery)
        await context.registrar.deregister(worker_id, registrations.base_url(query.base_url))
        return answers.nothing()

    return router


def _admit(context: contexts.Context, request: Request, worker_id: str) -> None:
    """Let only this worker in. Raises `InvalidRequest`, `Unauthenticated`, `RateLimited`."""
    principals.worker(
        context.authority,
        context.guard,
        context.clock.now(),
        authorization=request.headers.get("authorization"),
        worker_id=registrations.worker_id(worker_id),
    )
