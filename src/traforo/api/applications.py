"""From routes to an application: one supervisor around them, and beside them health, metrics and documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

import traforo
from traforo.api import answers, documents, limits, operations, pages, requests, routes, schemas
from traforo.settings import groups
from traforo.telemetry import logs, metrics

DOCUMENT = "/openapi.json"
"""Path of the description for programs."""
_HEALTHY = answers.encode({"status": "ok"})


class Application(FastAPI):
    """A FastAPI application whose routes are described by the framework and called by us.

    Endpoints take the request and the parameters of their path; dependencies, response models and middleware of the
    framework have no effect.
    """

    def __init__(self, *, supervise: Callable[[requests.App], requests.App], **options: Any) -> None:
        self._supervise = supervise
        super().__init__(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
            separate_input_output_schemas=False,
            telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are around the application
            **options,
        )

    def build_middleware_stack(self) -> Any:
        """Put the supervisor around a table of the routes: no layer of the framework is left on the way of a
        request.
        """
        return self._supervise(routes.Table(_declared(route) for route in self.router.routes))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made at first use."""
        if self.openapi_schema is None:
            self.openapi_schema = documents.build(self)
        return self.openapi_schema


def _declared(route: BaseRoute) -> routes.Declared:
    if isinstance(route, APIRoute):
        return routes.Declared(route.path, frozenset(route.methods or ()), routes.endpoint(route.endpoint))
    if isinstance(route, WebSocketRoute):
        return routes.Declared(route.path, frozenset(), routes.socket_endpoint(route.endpoint), socket=True)
    if isinstance(route, Route):
        return routes.Declared(route.path, None if route.methods is None else frozenset(route.methods), route.app)
    raise TypeError(f"cannot serve {route!r}: neither a route of a router nor a plain one")


def build(
    title: str,
    routers: Iterable[APIRouter],
    *,
    measured: metrics.ProcessMetrics,
    mode: groups.Mode,
    body_limits: limits.Limits | None = None,
    description: str = "",
    names: Iterable[str] = (),
    around: Callable[[requests.App], requests.App] | None = None,
) -> Application:
    """Make the application of a process.

    Args:
        title: Name of the API, for its documentation.
        routers: Its routes, made with `operations.router`. The first match wins.
        measured: Metrics of the process; `/metrics` shows their registry.
        mode: `prod` or `dev`; the latter is warned of, and refuses web pages of other origins.
        body_limits: How large bodies may be; 1 MiB everywhere by default.
        description: What the API is for, in Markdown.
        names: Hosts by which callers know it; in `dev` mode requests for other domains are refused.
        around: Puts something between the supervisor and the routes, for requests that no route could tell from others.
    """
    measured.auth_mode(mode)
    if mode == "dev":
        logs.get(__name__).warning(
            "dev mode: no credential is asked for, access is by id; set TRAFORO_JWT_SECRET for prod mode",
            auth_mode=mode,
        )

    known = frozenset(name.lower() for name in names)

    def supervise(app: requests.App) -> requests.App:
        return requests.Supervisor(
            around(app) if around is not None else app,
            measured=measured,
            body_limits=body_limits or limits.Limits(),
            local_only=mode == "dev",
            names=known,
        )

    application = Application(supervise=supervise, title=title, version=traforo.__version__, description=description)
    for router in (*routers, _common(application, measured)):
        application.router.routes.extend(router.routes)
    return application


def _common(application: Application, measured: metrics.ProcessMetrics) -> APIRouter:
    router = operations.router(tags=["process"])

    @router.get(
        "/healthz", **operations.describe(summary="Answer that it is there", answers={200: schemas.Health}, public=True)
    )
    async def healthz(_: Request) -> Response:
        return Response(_HEALTHY, media_type="application/json")

    @router.get(
        "/metrics", **operations.describe(summary="Metrics for Prometheus", answers={200: "text/plain"}, public=True)
    )
    async def show_metrics(_: Request) -> Response:
        content = await asyncio.to_thread(metrics.render, measured.registry)  # collectors read /proc
        return Response(content, headers={"content-type": metrics.CONTENT_TYPE})

    router.add_api_route("/", _entrance(application), include_in_schema=False)
    router.add_api_route(DOCUMENT, _document(application), include_in_schema=False)
    for path, page in pages.ALL.items():
        router.add_api_route(path, _page(page), include_in_schema=False)
    return router


def _entrance(application: Application) -> Callable[[Request], Awaitable[Response]]:
    """Say to people where the documentation is, and to programs as well."""
    told = {"name": application.title, "version": application.version, "docs": pages.FIRST, "openapi": DOCUMENT}
    encoded = answers.encode(told)

    async def show_entrance(request: Request) -> Response:
        headers = {"vary": "accept"}
        if "text/html" in request.headers.get("accept", ""):  # browsers ask for it by this name
            return answers.redirect(pages.FIRST, headers)
        return Response(encoded, headers=headers, media_type="application/json")

    return show_entrance


def _document(application: Application) -> Callable[[Request], Awaitable[Response]]:
    encoded: list[bytes] = []

    async def show_document(_: Request) -> Response:
        if not encoded:
            encoded.append(await asyncio.to_thread(lambda: answers.encode(application.openapi())))
        return Response(encoded[0], media_type="application/json")

    return show_document


def _page(page: pages.Page) -> Callable[[Request], Awaitable[Response]]:
    async def show_page(_: Request) -> Response:
        return Response(page.content, headers=page.headers)

    return show_page
