"""HTTP routes of execs: commands and code, their results, frames and signals.

A route reads the request, asks `worker.execs.execs` or `worker.execs.codes`, and writes the answer in the form of
`traforo.api.schemas`. Starting is for running sandboxes; reading goes on after their end.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import errors, specs
from traforo.telemetry import logs
from traforo.worker.execs import codes, commands, controls, execs
from traforo.worker.routes import contexts

_READ_FAILURES = [errors.Forbidden, errors.NotFound]
START_FAILURES = [
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
    coder = codes.Codes(context.execs, context.files, context.interpreters.script)

    @router.post(
        "/sandboxes/{sandbox_id}/exec",
        **operations.describe(
            summary="Start a command",
            request=schemas.ExecCreate,
            answers={200: schemas.Exec, 202: schemas.ExecStarted},
            failures=START_FAILURES,
        ),
    )
    async def start_exec(request: Request, sandbox_id: str) -> Response:
        """With `wait` the answer is the result (200), else where to ask for it (202). A command goes on when the one
        who waits for it goes away.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.ExecCreate, context.settings.max_body_bytes)
        run = contexts.logged(await context.execs.start(entry, spec(wanted)))
        if not wanted.wait:
            return answers.json(begun(run), 202)
        await context.execs.wait(run)
        return answers.json(await context.execs.result(run))

    @router.post(
        "/sandboxes/{sandbox_id}/exec/code",
        **operations.describe(
            summary="Run code",
            request=schemas.CodeCreate,
            answers={200: schemas.Exec, 202: schemas.ExecStarted},
            failures=[*START_FAILURES, errors.SyntaxRejected, errors.DiskFull],
        ),
    )
    async def start_code(request: Request, sandbox_id: str) -> Response:
        """Code that does not compile is a `syntax_error`, with nothing executed. Without `wait`, only bash is asked
        beforehand; of the others the exec's own stderr tells.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.CodeCreate, context.settings.max_code_body_bytes)
        code = codes.Code(
            wanted.code, wanted.runtime, wanted.timeout_ms, wanted.cwd, wanted.env, wanted.user, wanted.tag
        )
        if wanted.wait:
            result = await coder.run(entry, code)
            logs.bind(exec_id=result["exec_id"])
            return answers.json(result)
        run = contexts.logged(await coder.begin(entry, code))
        await context.execs.keep(run)
        return answers.json(begun(run), 202)

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
        found, next_cursor = context.execs.page(entry, query.limit, query.cursor, wanted(query))
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
        return answers.json(await context.execs.result(contexts.logged(context.execs.get(entry, exec_id))))

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
        run = contexts.logged(context.execs.get(entry, exec_id))
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
        await context.execs.signal(contexts.logged(context.execs.get(entry, exec_id)), number, tree=wanted.tree)
        return answers.nothing()

    @router.post(
        "/sandboxes/{sandbox_id}/exec/{exec_id}/stdin",
        **operations.describe(
            summary="Write to the stdin of an exec",
            query=schemas.StdinQuery,
            raw=True,
            answers={204: None},
            failures=[*_READ_FAILURES, errors.Conflict],
        ),
    )
    async def write_stdin(request: Request, sandbox_id: str, exec_id: str) -> Response:
        """The body is read as fast as the command reads, and the answer comes when all of it is in the pipe. A conflict
        tells in `written` how many bytes are.
        """
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.StdinQuery)
        run = contexts.logged(context.execs.get(entry, exec_id))
        controls.check_input(run)
        written = 0
        async for piece in bodies.stream(request):
            try:
                await controls.write(run, piece)
            except errors.Conflict as error:
                error.fields["written"] = written + int(error.fields.get("written", 0))
                raise
            written += len(piece)
        if query.close:
            await controls.finish(run)
        return answers.nothing()

    @router.post(
        "/sandboxes/{sandbox_id}/exec/{exec_id}/resize",
        **operations.describe(
            summary="Set the size of the terminal of an exec",
            request=schemas.TerminalSize,
            answers={204: None},
            failures=[*_READ_FAILURES, errors.Conflict],
        ),
    )
    async def resize_exec(request: Request, sandbox_id: str, exec_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        size = await bodies.read_json(request, schemas.TerminalSize, context.settings.max_body_bytes)
        await controls.resize(
            contexts.logged(context.execs.get(entry, exec_id)), specs.Terminal(size.rows, size.columns)
        )
        return answers.nothing()

    @router.delete(
        "/sandboxes/{sandbox_id}/exec/{exec_id}",
        **operations.describe(
            summary="Kill an exec and everything that descends from it",
            answers={204: None},
            failures=[*_READ_FAILURES, errors.Conflict],
        ),
    )
    async def kill_exec(request: Request, sandbox_id: str, exec_id: str) -> Response:
        """Answers when its end is recorded, and at once when it has ended; it can be read as before."""
        entry = context.entry(request, sandbox_id, live=False)
        await context.execs.kill(contexts.logged(context.execs.get(entry, exec_id)))
        return answers.nothing()

    @router.post(
        "/sandboxes/{sandbox_id}/signal",
        **operations.describe(
            summary="Send a signal to execs by tag, process id or id",
            request=schemas.SignalAllCreate,
            answers={200: schemas.Signalled},
            failures=[*_READ_FAILURES, errors.Conflict],
        ),
    )
    async def signal_all(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        asked = await bodies.read_json(request, schemas.SignalAllCreate, context.settings.max_body_bytes)
        number = commands.signal_number(asked.signal)
        if asked.exec_id is not None:
            found = [context.execs.get(entry, asked.exec_id)]
        else:
            found = context.execs.running(entry, tag=asked.tag, pid=asked.pid)
        return answers.json({"signalled": await context.execs.signal_all(found, number, tree=asked.tree)})

    return router


def spec(asked: schemas.ExecCreate) -> specs.ExecSpec:
    """Return what a request asks for, checked. Raises `InvalidRequest` and `TooLarge`."""
    if asked.background and asked.wait:
        raise errors.InvalidRequest("cannot start the command: 'background' excludes 'wait'", field="background")
    return commands.spec(
        asked.command,
        env=asked.env,
        cwd=asked.cwd,
        user=asked.user,
        timeout_ms=asked.timeout_ms,
        stdin_open=asked.stdin_open,
        stdin_data=_input(asked),
        terminal=None if asked.tty is None else specs.Terminal(asked.tty.rows, asked.tty.columns),
        tag=asked.tag,
        background=asked.background,
    )


def wanted(query: schemas.ExecQuery) -> Callable[[execs.Exec], bool] | None:
    """Return the filter of a list; None where all are wanted."""
    if query.tag is None and query.status is None and query.pid is None:
        return None

    def fits(run: execs.Exec) -> bool:
        return (
            (query.tag is None or run.tag == query.tag)
            and (query.status is None or run.status is query.status)
            and (query.pid is None or run.pid == query.pid)
        )

    return fits


def begun(run: execs.Exec) -> dict[str, Any]:
    """Return what `schemas.ExecStarted` describes."""
    own = f"/sandboxes/{run.sandbox_id}/exec/{run.id}"
    return {
        "exec_id": run.id,
        "sandbox_id": run.sandbox_id,
        "status": run.status,
        "poll_url": own,
        "frames_url": f"{own}/frames",
    }


def _input(asked: schemas.ExecCreate) -> bytes | None:
    if asked.stdin is not None:
        if asked.stdin_b64 is not None:
            raise errors.InvalidRequest("cannot start the command: 'stdin' excludes 'stdin_b64'", field="stdin")
        return asked.stdin.encode()
    if asked.stdin_b64 is None:
        return None
    try:
        return base64.b64decode(asked.stdin_b64, validate=True)
    except ValueError as error:
        raise errors.InvalidRequest("cannot read 'stdin_b64': it is not base64", field="stdin_b64") from error
