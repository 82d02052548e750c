"""HTTP routes of terminals: execs that run on one, opened for people to attach to and to come back to.

A terminal is an exec like any other: its WebSocket, its output, its signals are those of the exec. It does not count as
use of the sandbox by itself; whoever is attached does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import errors, specs
from traforo.worker.execs import commands, execs
from traforo.worker.routes import contexts
from traforo.worker.routes import execs as routes_execs
from traforo.worker.sandboxes import entries

LOGIN_SHELL = (
    'case "$SHELL" in */nologin|*/false) SHELL=/bin/sh;; esac; [ -x "$SHELL" ] || SHELL=/bin/sh; exec "$SHELL" -l'
)
"""What runs where nothing else is asked for: the shell of the user, or one that is there."""
LOGIN = "login shell"
"""How that is shown."""


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["terminals"])

    @router.post(
        "/sandboxes/{sandbox_id}/terminals",
        **operations.describe(
            summary="Open a terminal",
            request=schemas.TerminalCreate,
            answers={201: schemas.Terminal},
            failures=routes_execs.START_FAILURES,
        ),
    )
    async def open_terminal(request: Request, sandbox_id: str) -> Response:
        """It goes on when nobody is attached, and over a restart of the worker; who attaches gets what was shown."""
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.TerminalCreate, context.settings.max_body_bytes)
        spec = commands.spec(
            LOGIN_SHELL if wanted.command is None else wanted.command,
            env=wanted.env,
            cwd=wanted.cwd,
            user=wanted.user,
            timeout_ms=wanted.timeout_ms,
            terminal=specs.Terminal(wanted.rows, wanted.columns),
            tag=wanted.tag,
            background=True,
        )
        if wanted.command is None:
            spec = dataclasses.replace(spec, command=LOGIN)
        run = contexts.logged(await context.execs.start(entry, spec))
        return answers.json(_shown(context, run), 201)

    @router.get(
        "/sandboxes/{sandbox_id}/terminals",
        **operations.describe(
            summary="List the terminals of a sandbox, newest first",
            query=schemas.ExecQuery,
            answers={200: schemas.TerminalPage},
            failures=[errors.Forbidden, errors.NotFound],
        ),
    )
    async def list_terminals(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id, live=False)
        query = bodies.query(request, schemas.ExecQuery)
        wanted = routes_execs.wanted(query)
        found, cursor = context.execs.page(
            entry, query.limit, query.cursor, lambda run: run.tty and (wanted is None or wanted(run))
        )
        return answers.json({"terminals": [_shown(context, run) for run in found], "next_cursor": cursor})

    @router.delete(
        "/sandboxes/{sandbox_id}/terminals/{exec_id}",
        **operations.describe(
            summary="Kill everything on a terminal",
            answers={204: None},
            failures=[errors.Forbidden, errors.NotFound],
        ),
    )
    async def delete_terminal(request: Request, sandbox_id: str, exec_id: str) -> Response:
        entry = context.entry(request, sandbox_id, live=False)
        await context.execs.kill(_terminal(context, entry, exec_id))
        return answers.nothing()

    return router


def _terminal(context: contexts.Context, entry: entries.Entry, exec_id: str) -> execs.Exec:
    run = contexts.logged(context.execs.get(entry, exec_id))
    if not run.tty:
        raise errors.NotFound(f"the exec {exec_id!r} has no terminal", kind="terminal", id=exec_id)
    return run


def _shown(context: contexts.Context, run: execs.Exec) -> dict[str, Any]:
    base = context.place.base_url.rstrip("/").replace("http", "ws", 1)
    return run.summary() | {"ws_url": f"{base}/sandboxes/{run.sandbox_id}/exec/{run.id}/ws"}
