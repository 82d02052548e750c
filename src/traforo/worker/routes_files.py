"""HTTP routes of files: raw bodies streamed both ways, JSON for what is small, and directories.

A route reads the request, asks `traforo.worker.files`, and writes the answer in the form of `traforo.api.schemas`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from traforo.api import answers, bodies, operations, schemas
from traforo.domain import clocks, errors
from traforo.worker import contexts, descriptors, files, paths
from traforo.worker.runtimes import contract

RAW = "application/octet-stream"

_PathQuery = schemas.FileQuery | schemas.FileReadQuery | schemas.FileDeleteQuery | schemas.FileListQuery
_FIRST_MOMENT, _LAST_MOMENT = -62135596800.0, 253402300799.0  # what RFC 3339 can say: the years 1 to 9999

_FAILURES = [errors.Forbidden, errors.NotFound, errors.Conflict]


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["files"])

    @router.put(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Write a file",
            request=schemas.FileWrite,
            raw=True,
            query=schemas.FileQuery,
            answers={200: schemas.FileWritten},
            failures=[*_FAILURES, errors.TooLarge, errors.DiskFull],
        ),
    )
    async def write_file(request: Request, sandbox_id: str) -> Response:
        """A raw body may have any size that the sandbox's disk holds. With `Content-Type: application/json` the body
        says what to write, and whether to append. Parents are made.
        """
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileQuery)
        path = _path(request, query)
        append = False
        if _is_json(request):
            wanted = await bodies.read_json(request, schemas.FileWrite, context.settings.max_file_body_bytes)
            content = files.pieces(_decoded(wanted))
            append = wanted.append
        else:
            content = bodies.stream(request)
        written = await context.files.write(entry, path, content, user=query.user, append=append)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(path),
                "bytes_written": written.bytes_written,
                "bytes": written.size,
            }
        )

    @router.get(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Read a file",
            query=schemas.FileReadQuery,
            answers={200: schemas.FileContent},
            failures=[*_FAILURES, errors.TooLarge],
        ),
    )
    async def read_file(request: Request, sandbox_id: str) -> Response:
        """Without `encoding` the answer is the bytes themselves, of any number, as `application/octet-stream`."""
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileReadQuery)
        path = _path(request, query)
        if query.encoding is None:
            return Download(await context.files.open(entry, path, user=query.user))
        data = await context.files.content(entry, path, user=query.user)
        text = base64.b64encode(data).decode() if query.encoding == "base64" else data.decode(errors="replace")
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(path),
                "type": "file",
                "encoding": query.encoding,
                "content": text,
                "bytes": len(data),
            }
        )

    @router.delete(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Delete a file or a directory",
            query=schemas.FileDeleteQuery,
            answers={204: None},
            failures=_FAILURES,
        ),
    )
    async def delete_file(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileDeleteQuery)
        path = _path(request, query)
        await context.files.remove(entry, path, user=query.user, recursive=query.recursive, force=query.force)
        return answers.nothing()

    @router.get(
        "/sandboxes/{sandbox_id}/files/stat",
        **operations.describe(
            summary="Read the facts about a path",
            query=schemas.FileQuery,
            answers={200: schemas.FileStat},
            failures=_FAILURES,
        ),
    )
    async def stat_file(request: Request, sandbox_id: str) -> Response:
        """A link is described itself, with its `target`. That nothing exists is an answer, not an error."""
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileQuery)
        path = _path(request, query)
        found = await context.files.stat(entry, path, user=query.user)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(path), **_stat(found)})

    @router.get(
        "/sandboxes/{sandbox_id}/files/list",
        **operations.describe(
            summary="List a directory, sorted by path",
            query=schemas.FileListQuery,
            answers={200: schemas.FileListing},
            failures=[*_FAILURES, errors.TooLarge],
        ),
    )
    async def list_files(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileListQuery)
        path = _path(request, query)
        page = await context.files.list(
            entry, path, user=query.user, recursive=query.recursive, limit=query.limit, cursor=query.cursor
        )
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(path),
                "entries": [_entry(found) for found in page.entries],
                "next_cursor": page.next_cursor,
            }
        )

    @router.post(
        "/sandboxes/{sandbox_id}/files/mkdir",
        **operations.describe(
            summary="Make a directory",
            request=schemas.DirectoryCreate,
            answers={200: schemas.DirectoryMade},
            failures=[*_FAILURES, errors.DiskFull],
        ),
    )
    async def make_directory(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.DirectoryCreate, context.settings.max_body_bytes)
        path = paths.asked(wanted.path, wanted.path_b64)
        created = await context.files.mkdir(entry, path, user=wanted.user, recursive=wanted.recursive)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(path), "created": created})

    return router


class Download(Response):
    """A file as an answer, of which a block at a time is in memory. Owns the file, and closes it whatever happens."""

    def __init__(self, file: files.OpenFile) -> None:
        super().__init__(media_type=RAW)
        self._file = file
        del self.headers["content-length"]
        self.headers["content-length"] = str(file.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send exactly as many bytes as the file had when it was opened. Raises `InvalidRequest` if it has fewer now.

        The connection is broken off then, so that nobody takes a part for the whole.
        """
        try:
            if self._file.size <= descriptors.INLINE_BYTES:
                await self._send_at_once(send)
            else:
                await self._send_blocks(receive, send)
        finally:
            self._file.close()

    async def _send_at_once(self, send: Send) -> None:
        data = await self._file.read(self._file.size)
        self.headers["content-length"] = str(len(data))
        await self._begin(send)
        await send({"type": "http.response.body", "body": data})

    async def _send_blocks(self, receive: Receive, send: Send) -> None:
        await self._begin(send)
        gone = asyncio.ensure_future(_gone(receive))
        try:
            left = self._file.size
            while left > 0 and not gone.done():
                data = await self._file.read(min(left, descriptors.BLOCK_BYTES))
                if not data:
                    raise errors.InvalidRequest("cannot go on sending: the file was made shorter")
                left -= len(data)
                await send({"type": "http.response.body", "body": data, "more_body": left > 0})
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(request: Request, query: _PathQuery) -> str:
    """Return the path that a query names. Raises `InvalidRequest`.

    Where a query is not UTF-8 the framework puts U+FFFD, which would name another file.
    """
    path = paths.asked(query.path, query.path_b64)
    if "\ufffd" in path and b"%EF%BF%BD" not in request.scope["query_string"].upper():
        raise errors.InvalidRequest(
            "cannot read the path: not UTF-8", field="path", hint="send the bytes as base64 in 'path_b64'"
        )
    return path


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _decoded(wanted: schemas.FileWrite) -> bytes:
    if wanted.encoding == "utf8":
        data = wanted.content.encode()
    else:
        try:
            data = base64.b64decode(wanted.content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise errors.InvalidRequest("cannot read 'content': not base64", field="content") from error
    if len(data) > files.MAX_CONTENT_BYTES:
        raise errors.TooLarge(
            f"cannot write content of more than {files.MAX_CONTENT_BYTES} bytes as JSON",
            limit=files.MAX_CONTENT_BYTES,
            field="content",
            hint="send the bytes as the body itself",
        )
    return data


def _stat(found: contract.FileStat | None) -> dict[str, Any]:
    if found is None:
        return {"exists": False}
    return {
        "exists": True,
        "type": found.kind,
        "size": found.size,
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "modified_at": _moment(found.modified_at),
        "target": None if found.target is None else paths.shown(found.target),
    }


def _entry(found: contract.FileStat) -> dict[str, Any]:
    name = found.path.rpartition("/")[2]
    return {
        **paths.fields(name, "name"),
        **paths.fields(found.path),
        "type": found.kind,
        "size": found.size,
        "mode": found.mode,
        "modified_at": _moment(found.modified_at),
    }


def _moment(seconds: float) -> str:
    """Return a file's time, which its owner may set to anything, or the nearest that can be written down."""
    return clocks.rfc3339(min(max(seconds, _FIRST_MOMENT), _LAST_MOMENT))
