"""HTTP routes of code contexts: interpreters that stay, and runs of code in them.

A run is an exec: its output can be read, followed and replayed by the routes of execs.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import errors
from traforo.worker.interpreters import services
from traforo.worker.routes import contexts
from traforo.worker.routes import execs as routes_execs

_FAILURES = [errors.Forbidden, errors.NotFound, errors.Conflict]
_PATH = "/sandboxes/{sandbox_id}/contexts"


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["contexts"])
    service = context.interpreters

    @router.post(
        _PATH,
        **operations.describe(
            summary="Create a code context",
            request=schemas.ContextCreate,
            answers={201: schemas.CodeContext},
            failures=routes_execs.START_FAILURES,
        ),
    )
    async def create_context(request: Request, sandbox_id: str) -> Response:
        """An interpreter that keeps its state from run to run."""
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.ContextCreate, context.settings.max_body_bytes)
        creation = services.Creation(wanted.runtime, wanted.cwd, wanted.env, wanted.user, wanted.name)
        return answers.json((await service.create(entry, creation)).summary(), 201)

    @router.get(
        _PATH,
        **operations.describe(
            summary="List the code contexts of a sandbox", answers={200: schemas.ContextList}, failures=_FAILURES
        ),
    )
    async def list_contexts(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        return answers.json({"contexts": [found.summary() for found in service.all(entry)]})

    @router.get(
        _PATH + "/{context_id}",
        **operations.describe(summary="Read a code context", answers={200: schemas.CodeContext}, failures=_FAILURES),
    )
    async def read_context(request: Request, sandbox_id: str, context_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        return answers.json(service.get(entry, context_id).summary())

    @router.delete(
        _PATH + "/{context_id}",
        **operations.describe(summary="Delete a code context", answers={204: None}, failures=_FAILURES),
    )
    async def delete_context(request: Request, sandbox_id: str, context_id: str) -> Response:
        """Everything that its code started ends with it."""
        entry = context.entry(request, sandbox_id)
        await service.delete(entry, context_id)
        return answers.nothing()

    @router.post(
        _PATH + "/{context_id}/run",
        **operations.describe(
            summary="Run code in a context",
            request=schemas.RunCreate,
            answers={200: schemas.ContextRun, 202: schemas.ExecStarted},
            failures=[*_FAILURES, errors.TooLarge, errors.RateLimited],
        ),
    )
    async def run_in_context(request: Request, sandbox_id: str, context_id: str) -> Response:
        """Runs of one context come one after the other. Each is an exec; what its code shows comes as frames of type
        `result`. After its deadline the code is interrupted, and 2 s later its context is killed. A run goes on when
        the one who waits for it goes away.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.RunCreate, context.settings.max_code_body_bytes)
        run = service.run(entry, context_id, wanted.code, env=wanted.env, timeout_ms=wanted.timeout_ms, tag=wanted.tag)
        contexts.logged(run.exec)
        if not wanted.wait:
            await context.execs.keep(run.exec)
            return answers.json(routes_execs.begun(run.exec), 202)
        await context.execs.wait(run.exec)
        await context.execs.keep(run.exec)
        return answers.json(await service.result(run))

    @router.post(
        _PATH + "/{context_id}/interrupt",
        **operations.describe(summary="Interrupt the run of a context", answers={204: None}, failures=_FAILURES),
    )
    async def interrupt_context(request: Request, sandbox_id: str, context_id: str) -> Response:
        """As Ctrl-C does: the code meets a KeyboardInterrupt, its processes a SIGINT; the context stays."""
        entry = context.entry(request, sandbox_id)
        await service.get(entry, context_id).interrupt()
        return answers.nothing()

    @router.post(
        _PATH + "/{context_id}/restart",
        **operations.describe(
            summary="Give a context a fresh interpreter",
            answers={200: schemas.CodeContext},
            failures=routes_execs.START_FAILURES,
        ),
    )
    async def restart_context(request: Request, sandbox_id: str, context_id: str) -> Response:
        """What ran in it ends, with everything that its code started; id, directory and environment stay."""
        entry = context.entry(request, sandbox_id)
        return answers.json((await service.restart(entry, context_id)).summary())

    return router
