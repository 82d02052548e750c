"""HTTP routes about ports of sandboxes: what listens, how one is reached, who may. Traffic itself passes elsewhere.

What is at a port is not asked: a URL can be had, and a port published, before its server starts.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib import parse

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import errors, states
from traforo.worker.ports import listeners, targets
from traforo.worker.routes import contexts
from traforo.worker.sandboxes import entries


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["ports"])
    failures = [errors.Forbidden, errors.NotFound, errors.Conflict]

    @router.get(
        "/sandboxes/{sandbox_id}/ports",
        **operations.describe(
            summary="List the TCP ports that something listens on", answers={200: schemas.PortPage}, failures=failures
        ),
    )
    async def list_ports(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        running = entry.running
        found = [] if running is None else await asyncio.to_thread(listeners.find, running.pid)
        public = context.ports.published.public
        rows = [{"port": one.port, "address": one.address, "public": public(entry.text_id, one.port)} for one in found]
        return answers.json({"ports": rows})

    @router.get(
        "/sandboxes/{sandbox_id}/ports/{port}/url",
        **operations.describe(
            summary="Tell how a port is reached",
            query=schemas.PortQuery,
            answers={200: schemas.Port},
            failures=failures,
        ),
    )
    async def show_port(request: Request, sandbox_id: str, port: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.PortQuery)
        return answers.json(_port(context, entry, targets.port(port), query.protocol))

    @router.post(
        "/sandboxes/{sandbox_id}/ports/{port}",
        **operations.describe(
            summary="Make a port public, or private again",
            request=schemas.PortPublish,
            answers={200: schemas.Port},
            failures=failures,
        ),
    )
    async def publish_port(request: Request, sandbox_id: str, port: str) -> Response:
        """Private again, connections that are open go on."""
        entry = context.entry(request, sandbox_id)
        number = targets.port(port)
        wanted = await bodies.read_json(request, schemas.PortPublish)
        if await context.ports.published.set(entry.text_id, number, public=wanted.public):
            kind = states.Happening.PORT_PUBLISHED if wanted.public else states.Happening.PORT_UNPUBLISHED
            entry.happenings.tell(kind, port=number)
        return answers.json(_port(context, entry, number, None))

    @router.get(
        "/sandboxes/{sandbox_id}/proxy/{port}/{path:path}",
        **operations.describe(
            summary="Ask the server that listens on a port",
            answers={200: "*/*"},
            failures=[
                *failures,
                errors.RateLimited,
                errors.PortUnreachable,
                errors.UpstreamFailed,
                errors.UpstreamTimeout,
            ],
        ),
    )
    async def forward(request: Request, sandbox_id: str, port: str, path: str) -> Response:
        """Any method, with any body, and any upgrade: the answer is the server's. A traffic token opens it as well."""
        del request, sandbox_id, port, path  # such requests are taken over before routes see them
        raise errors.NotFound("no such route", kind="route")

    return router


def _port(context: contexts.Context, entry: entries.Entry, port: int, protocol: str | None) -> dict[str, Any]:
    base = parse.urlsplit(context.place.base_url)
    scheme = protocol or base.scheme
    outer = f":{base.port}" if base.port else ""
    host = f"{port}-{entry.id.dns}.{context.settings.ports_domain}"
    return {
        "sandbox_id": entry.text_id,
        "port": port,
        "protocol": scheme,
        "url": f"{scheme}://{base.netloc}/sandboxes/{entry.text_id}/proxy/{port}",
        "host_url": f"{scheme}://{host}{outer}",
        "token": context.authority.traffic_token(entry.text_id),
        "public": context.ports.published.public(entry.text_id, port),
    }
