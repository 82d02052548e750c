"""HTTP routes of single files: raw bodies streamed both ways, JSON for what is small, and directories.

A route reads the request, asks `worker.files.files`, and writes the answer in the form of `traforo.api.schemas`.
Routes of trees, watches and signed URLs are in modules of their own; `build` puts all of them together.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, downloads, operations, schemas
from traforo.domain import errors
from traforo.worker.files import conditions, files, paths, ranges, replacements
from traforo.worker.routes import changes as routes_changes
from traforo.worker.routes import contexts
from traforo.worker.routes import paths as routes_paths
from traforo.worker.routes import trees as routes_trees
from traforo.worker.routes import urls as routes_urls
from traforo.worker.sandboxes import entries

_READ_FAILURES = [*routes_paths.FAILURES, errors.TooLarge, errors.PreconditionFailed, errors.RangeNotSatisfiable]


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a request for one file may do: by its own credential, or as a signed URL says."""

    entry: entries.Entry
    path: str
    user: str | None
    max_bytes: int | None = None
    signed: bool = False


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["files"])
    for part in (routes_trees, routes_changes, routes_urls):
        router.routes.extend(part.build(context).routes)

    def opened(
        request: Request, sandbox_id: str, query: schemas.FileReadQuery | schemas.FileWriteQuery, method: str
    ) -> _Opened:
        if query.signature is None:
            entry = context.entry(request, sandbox_id)
            return _Opened(entry, routes_paths.asked(request, query), query.user)
        entry, grant = context.granted(sandbox_id, query.signature)
        path = paths.check(grant.path.decode(errors="surrogateescape"))
        if grant.method != method:
            raise errors.Forbidden(f"cannot {method} here: the URL was signed for {grant.method}")
        if query.path not in {None, path} or query.path_b64 is not None or query.user not in {None, grant.user}:
            raise errors.Forbidden("cannot use another path or user than the URL was signed for")
        return _Opened(entry, path, grant.user, grant.max_bytes, signed=True)

    @router.put(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Write a file",
            request=schemas.FileWrite,
            raw=True,
            query=schemas.FileWriteQuery,
            answers={200: schemas.FileWritten},
            failures=[*routes_paths.FAILURES, errors.PreconditionFailed, errors.TooLarge, errors.DiskFull],
        ),
    )
    async def write_file(request: Request, sandbox_id: str) -> Response:
        """A raw body may have any size that the sandbox's disk holds. With `Content-Type: application/json` the body
        says what to write, and whether to append. Parents are made. A file takes the place of an older one when it is
        whole. `If-None-Match: *` makes a new file only, `If-Match` replaces one version only.
        """
        query = bodies.query(request, schemas.FileWriteQuery)
        target = opened(request, sandbox_id, query, "PUT")
        append = False
        content: AsyncIterator[bytes]
        if not target.signed and _is_json(request):
            wanted = await bodies.read_json(request, schemas.FileWrite, context.settings.max_file_body_bytes)
            content = files.pieces(_decoded(wanted))
            append = wanted.append
        else:
            content = bodies.stream(request, target.max_bytes)
        if append and conditions.of(request.headers).any:
            raise errors.InvalidRequest("cannot append on a condition", field="append")
        written = await context.files.write(
            target.entry,
            target.path,
            content,
            user=target.user,
            append=append,
            mode=None if target.signed else query.mode,
            wanted=conditions.of(request.headers),
        )
        content_json = {
            "sandbox_id": target.entry.text_id,
            **paths.fields(target.path),
            "bytes_written": written.bytes_written,
            "bytes": written.size,
            "etag": written.etag,
        }
        return answers.json(content_json, headers={"etag": written.etag})

    async def send(request: Request, sandbox_id: str) -> Response:
        query = bodies.query(request, schemas.FileReadQuery)
        target = opened(request, sandbox_id, query, "GET")
        if query.encoding is not None:
            return await _as_json(context, target, query.encoding)
        file = await context.files.open(target.entry, target.path, user=target.user)
        try:
            return _download(request, file, target.path)
        except BaseException:
            file.close()
            raise

    @router.get(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Read a file",
            query=schemas.FileReadQuery,
            answers={200: (schemas.FileContent, downloads.RAW), 206: downloads.RAW, 304: None},
            failures=_READ_FAILURES,
        ),
    )
    async def read_file(request: Request, sandbox_id: str) -> Response:
        """Without `encoding` the answer is the bytes themselves, of any number, as `application/octet-stream`, with
        `ETag` and `Last-Modified`. One `Range` is served; `If-None-Match`, `If-Match`, `If-Range`, `If-Modified-Since`
        and `If-Unmodified-Since` are honoured.
        """
        return await send(request, sandbox_id)

    @router.head(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Ask what reading a file would give",
            query=schemas.FileReadQuery,
            answers={200: None, 206: None, 304: None},
            failures=_READ_FAILURES,
        ),
    )
    async def head_file(request: Request, sandbox_id: str) -> Response:
        """The headers of `GET` without the bytes."""
        return await send(request, sandbox_id)

    @router.delete(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Delete a file or a directory",
            query=schemas.FileDeleteQuery,
            answers={204: None},
            failures=routes_paths.FAILURES,
        ),
    )
    async def delete_file(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileDeleteQuery)
        path = routes_paths.asked(request, query)
        await context.files.remove(entry, path, user=query.user, recursive=query.recursive, force=query.force)
        return answers.nothing()

    @router.get(
        "/sandboxes/{sandbox_id}/files/stat",
        **operations.describe(
            summary="Read the facts about a path",
            query=schemas.FileQuery,
            answers={200: schemas.FileStat},
            failures=routes_paths.FAILURES,
        ),
    )
    async def stat_file(request: Request, sandbox_id: str) -> Response:
        """A link is described itself, with its `target`. That nothing exists is an answer, not an error."""
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileQuery)
        path = routes_paths.asked(request, query)
        found = await context.files.stat(entry, path, user=query.user)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(path), **routes_paths.stat(found)})

    @router.get(
        "/sandboxes/{sandbox_id}/files/list",
        **operations.describe(
            summary="List a directory, sorted by path",
            query=schemas.FileListQuery,
            answers={200: schemas.FileListing},
            failures=[*routes_paths.FAILURES, errors.TooLarge],
        ),
    )
    async def list_files(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileListQuery)
        path = routes_paths.asked(request, query)
        page = await context.files.list(
            entry, path, user=query.user, recursive=query.recursive, limit=query.limit, cursor=query.cursor
        )
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(path),
                "entries": [routes_paths.entry(found) for found in page.entries],
                "next_cursor": page.next_cursor,
            }
        )

    @router.post(
        "/sandboxes/{sandbox_id}/files/mkdir",
        **operations.describe(
            summary="Make a directory",
            request=schemas.DirectoryCreate,
            answers={200: schemas.DirectoryMade},
            failures=[*routes_paths.FAILURES, errors.DiskFull],
        ),
    )
    async def make_directory(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.DirectoryCreate, context.settings.max_body_bytes)
        path = paths.asked(wanted.path, wanted.path_b64)
        created = await context.files.mkdir(entry, path, user=wanted.user, recursive=wanted.recursive)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(path), "created": created})

    return router


def _download(request: Request, file: files.OpenFile, path: str) -> Response:
    """Answer with a file, a part of it, or that the caller has it already. Raises `PreconditionFailed`,
    `RangeNotSatisfiable`.
    """
    wanted = conditions.of(request.headers)
    headers = {
        "etag": conditions.etag(file.found),
        "last-modified": conditions.last_modified(file.found),
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
    }
    verdict = conditions.read(wanted, file.found)
    if verdict is conditions.Verdict.FAILED:
        raise replacements.failed(path)
    if verdict is conditions.Verdict.UNCHANGED:
        file.close()
        return Response(status_code=304, headers=headers)
    part = None
    if "range" in request.headers and conditions.range_holds(wanted, file.found):
        part = ranges.parse(request.headers["range"], file.size)
    if part is None:
        return downloads.Download(file, file.size, headers=headers)
    file.seek(part.first)
    return downloads.Download(
        file, part.length, offset=part.first, status=206, headers=headers | {"content-range": part.header(file.size)}
    )


async def _as_json(context: contexts.Context, target: _Opened, encoding: str) -> Response:
    data = await context.files.content(target.entry, target.path, user=target.user)
    text = base64.b64encode(data).decode() if encoding == "base64" else data.decode(errors="replace")
    return answers.json(
        {
            "sandbox_id": target.entry.text_id,
            **paths.fields(target.path),
            "type": "file",
            "encoding": encoding,
            "content": text,
            "bytes": len(data),
        }
    )


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
