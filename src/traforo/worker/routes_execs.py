"""HTTP routes of execs: commands and code, their results, frames and signals.

A route reads the request, asks `traforo.worker.execs` or `traforo.worker.codes`, and writes the answer in the form of
`traforo.api.schemas`. Starting is for running sandboxes; reading goes on after their end.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import errors
from traforo.worker import codes, commands, contexts, execs

_READ_FAILURES = [errors.Forbidden, errors.NotFound]
_START_FAILURES = [
    *_READ_FAILURES,
    errors.Conflict,
    errors.TooLarge,
    errors.StartFailed,
    errors.RateLimited,
    errors.WorkerUnavailable,
]


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["execs"])
    coder = codes.Codes(context.execs, context.files)

    @router.post(
        "/sandboxes/{sandbox_id}/exec",
        **operations.describe(
            summary="Start a command",
            request=schemas.ExecCreate,
            answers={200: schemas.Exec, 202: schemas.ExecStarted},
            failures=_START_FAILURES,
        ),
    )
    async def start_exec(request: Request, sandbox_id: str) -> Response:
        """With `wait` the answer is the result (200), else where to ask for it (202). A command goes on when the one
        who waits for it goes away.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.ExecCreate, context.settings.max_body_bytes)
        spec = commands.spec(
            wanted.command, env=wanted.env, cwd=wanted.cwd, user=wanted.user, timeout_ms=wanted.timeout_ms
        )
        run = await context.execs.start(entry, spec)
        if not wanted.wait:
            return _begun(run)
        await context.execs.wait(run)
        return answers.json(await context.execs.result(run))

    @router.post(
        "/sandboxes/{sandbox_id}/exec/code",
        **operations.describe(
            summary="Run code",
            request=schemas.CodeCreate,
            answers={200: schemas.Exec, 202: schemas.ExecStarted},
            failures=[*_START_FAILURES, errors.SyntaxRejected, errors.DiskFull],
        ),
    )
    async def start_code(request: Request, sandbox_id: str) -> Response:
        """Code that does not compile is a `syntax_error`, with nothing executed. Without `wait`, only bash is asked
        beforehand; of the others the exec's own stderr tells.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.CodeCreate, context.settings.max_code_body_bytes)
        code = codes.Code(wanted.code, wanted.runtime, wanted.timeout_ms, wanted.cwd, wanted.env, wanted.user)
        if wanted.wait:
            return answers.json(await coder.run(entry, code))
        return _begun(await coder.begin(entry, code))

    @router.get(
        "/sandboxes/{sandbox_id}/exec",
        **operations.describe(
            summary="List the execs of a sandbox, newest first",
            query=schemas.ExecQuery,
            answers={200: schemas.ExecPage},
            failures=_READ_FAILURES,
        ),
    )
    async def list_execs(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id, live=False)
        query = bodies.query(request, schemas.ExecQuery)
        found, next_cursor = context.execs.page(entry, query.limit, query.cursor)
        return answers.json({"execs": [run.summary() for run in found], "next_cursor": next_cursor})

    @router.get(
        "/sandboxes/{sandbox_id}/exec/{exec_id}",
        **operations.describe(
            summary="Read an exec with its output so far",
            answers={200: schemas.Exec},
            failures=_READ_FAILURES,
        ),
    )
    async def read_exec(request: Request, sandbox_id: str, exec_id: str) -> Response:
        entry = context.entry(request, sandbox_id, live=False)
        return answers.json(await context.execs.result(context.execs.get(entry, exec_id)))

    @router.get(
        "/sandboxes/{sandbox_id}/exec/{exec_id}/frames",
        **operations.describe(
            summary="Read the output of an exec piece by piece, from a cursor",
            query=schemas.FrameQuery,
            answers={200: schemas.FramePage},
            failures=_READ_FAILURES,
        ),
    )
    async def read_frames(request: Request, sandbox_id: str, exec_id: str) -> Response:
        """The last frame is of type `exit`, and then `has_more` is false. With `wait` the answer is held back until
        there is a frame.
        """
        entry = context.entry(request, sandbox_id, live=False)
        query = bodies.query(request, schemas.FrameQuery)
        run = context.execs.get(entry, exec_id)
        page = await context.execs.frames(
            run, cursor=query.cursor, wait=query.wait, limit=query.limit, encoding=query.encoding
        )
        return answers.json(page)

    @router.post(
        "/sandboxes/{sandbox_id}/exec/{exec_id}/signal",
        **operations.describe(
            summary="Send a signal to an exec",
            request=schemas.SignalCreate,
            answers={204: None},
            failures=[*_READ_FAILURES, errors.Conflict],
        ),
    )
    async def signal_exec(request: Request, sandbox_id: str, exec_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.SignalCreate, context.settings.max_body_bytes)
        number = commands.signal_number(wanted.signal)
        await context.execs.signal(context.execs.get(entry, exec_id), number, tree=wanted.tree)
        return answers.nothing()

    return router


def _begun(run: execs.Exec) -> Response:
    own = f"/sandboxes/{run.sandbox_id}/exec/{run.id}"
    answer: dict[str, Any] = {
        "exec_id": run.id,
        "sandbox_id": run.sandbox_id,
        "status": run.status,
        "poll_url": own,
        "frames_url": f"{own}/frames",
    }
    return answers.json(answer, 202)
