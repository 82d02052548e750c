"""The HTTP route of the availability snapshot. `/metrics` itself is every process's, see `traforo.api.applications`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from traforo.api import operations
from traforo.control import contexts, snapshots


def build(context: contexts.Context) -> APIRouter:
    """Make the route over these services."""
    router = operations.router(tags=["process"])

    @router.get(
        "/metrics/sandboxes",
        **operations.describe(summary="Room for sandboxes, as text", answers={200: "text/plain"}, public=True),
    )
    async def show_sandboxes(_request: Request) -> Response:
        text = snapshots.render(context.registrar.members(), context.clock.now())
        return PlainTextResponse(text, headers={"cache-control": "no-store"})

    return router
