"""HTTP routes of watches: what changed in a directory, by polling or pushed over a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas, sockets
from traforo.domain import errors
from traforo.worker.files import changes, paths
from traforo.worker.routes import contexts
from traforo.worker.routes import paths as routes_paths

_PUSH_LIMIT = 1000
"""Most changes of one message."""


def build(context: contexts.Context) -> operations.Router:
    """Make the routes over these services."""
    router = operations.router(tags=["files"])
    watches = context.files.watches

    @router.post(
        "/sandboxes/{sandbox_id}/files/watches",
        **operations.describe(
            summary="Watch a directory",
            request=schemas.WatchCreate,
            answers={201: schemas.WatchStarted},
            failures=[*routes_paths.FAILURES, errors.RateLimited],
        ),
    )
    async def start_watch(request: Request, sandbox_id: str) -> Response:
        """A watch that nobody reads for five minutes ends, as do all with the worker."""
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.WatchCreate, context.settings.max_body_bytes)
        path = paths.asked(wanted.path, wanted.path_b64)
        watch = await watches.start(entry, path, user=wanted.user, recursive=wanted.recursive)
        started = {
            "watch_id": watch.id,
            "sandbox_id": entry.text_id,
            **paths.fields(path),
            "recursive": wanted.recursive,
            "poll_url": f"/sandboxes/{entry.text_id}/files/watches/{watch.id}",
        }
        return answers.json(started, 201)

    @router.get(
        "/sandboxes/{sandbox_id}/files/watches/{watch_id}",
        **operations.describe(
            summary="Read what changed",
            query=schemas.WatchReadQuery,
            answers={200: schemas.WatchedChanges},
            failures=routes_paths.FAILURES,
        ),
    )
    async def read_watch(request: Request, sandbox_id: str, watch_id: str) -> Response:
        """At most 10,000 changes are kept; `overflow` says that there were others before the first of the page."""
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.WatchReadQuery)
        watch = watches.get(entry, watch_id)
        page = await watches.read(watch, query.cursor, wait=query.wait, limit=query.limit)
        return answers.json(_page(page))

    @router.delete(
        "/sandboxes/{sandbox_id}/files/watches/{watch_id}",
        **operations.describe(summary="End a watch", answers={204: None}, failures=routes_paths.FAILURES),
    )
    async def end_watch(request: Request, sandbox_id: str, watch_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        await watches.stop(watches.get(entry, watch_id))
        return answers.nothing()

    @router.websocket("/sandboxes/{sandbox_id}/files/watch")
    async def push_changes(socket: sockets.Socket, sandbox_id: str) -> None:
        entry = context.entry(socket.connection, sandbox_id)
        query = bodies.query(socket.connection, schemas.WatchQuery)
        path = routes_paths.asked(socket.connection, query)
        watch = await watches.start(entry, path, user=query.user, recursive=query.recursive)
        try:
            await socket.accept()
            await _push(watches, watch, socket)
        finally:
            await watches.stop(watch)

    return router


async def _push(watches: changes.Watches, watch: changes.Watch, socket: sockets.Socket) -> None:
    """Send pages as they come, until there will be no more or the client is gone; what it says means nothing."""
    gone = asyncio.ensure_future(_gone(socket))
    sending = asyncio.ensure_future(_send(watches, watch, socket))
    try:
        await asyncio.wait([gone, sending], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
            await socket.close(sockets.NORMAL, "the directory is gone")
    finally:
        for task in (gone, sending):
            task.cancel()
        await asyncio.gather(gone, sending, return_exceptions=True)


async def _send(watches: changes.Watches, watch: changes.Watch, socket: sockets.Socket) -> None:
    cursor = 0
    while True:
        page = await watches.read(watch, cursor, wait=schemas.MAX_WAIT_SECONDS, limit=_PUSH_LIMIT)
        cursor = page.next_cursor
        if page.changes or page.overflow or page.ended:
            await socket.send(answers.encode(_page(page)).decode())
        if page.ended:
            return


async def _gone(socket: sockets.Socket) -> None:
    while await socket.receive() is not None:
        pass


def _page(page: changes.Page) -> dict[str, Any]:
    return {
        "changes": [
            {
                "cursor": cursor,
                "kind": change.kind.value,
                **paths.fields(change.path),
                "type": "directory" if change.directory else "other",
                "moved_from": None,
                **({} if change.moved_from is None else paths.fields(change.moved_from, "moved_from")),
            }
            for cursor, change in page.changes
        ],
        "next_cursor": page.next_cursor,
        "overflow": page.overflow,
        "ended": page.ended,
    }
