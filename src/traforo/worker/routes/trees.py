"""HTTP routes of trees: move, copy and change, find and search, archives in both directions."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, downloads, operations, schemas
from traforo.domain import errors
from traforo.worker import insides
from traforo.worker.files import files, globs, inflows, owners, packings, paths, searches, trees, unpackings, walks
from traforo.worker.routes import contexts
from traforo.worker.routes import paths as routes_paths
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

MEDIA_TYPES = {"none": "application/x-tar", "gzip": "application/gzip"}
_MIB = 1024 * 1024
_BUSY = [*routes_paths.FAILURES, errors.TooLarge, errors.RateLimited]


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["files"])
    _transfers(router, context)
    _lookups(router, context)
    _archives(router, context)
    return router


def _transfers(router: APIRouter, context: contexts.Context) -> None:
    @router.post(
        "/sandboxes/{sandbox_id}/files/move",
        **operations.describe(
            summary="Move a file or a directory",
            request=schemas.FileMove,
            answers={200: schemas.FileMoved},
            failures=[*_BUSY, errors.DiskFull],
        ),
    )
    async def move_file(request: Request, sandbox_id: str) -> Response:
        """Within one file system nothing is copied. Between two, the copy takes its place when it is whole."""
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.FileMove, context.settings.max_body_bytes)
        path, to = _both(wanted)
        tree = _tree(context, entry, wanted.user)
        moving = tree.move(path, to, overwrite=wanted.overwrite)
        with entry.activity.hold():
            await downloads.unless_gone(request.receive, moving)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(to)})

    @router.post(
        "/sandboxes/{sandbox_id}/files/copy",
        **operations.describe(
            summary="Copy a file or a directory",
            request=schemas.FileCopy,
            answers={200: schemas.FileCopied},
            failures=[*_BUSY, errors.DiskFull],
        ),
    )
    async def copy_file(request: Request, sandbox_id: str) -> Response:
        """Permission bits are kept; the copies belong to the user. A copy ends when its caller goes away."""
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.FileCopy, context.settings.max_body_bytes)
        path, to = _both(wanted)
        tree = _tree(context, entry, wanted.user)
        copying = tree.copy(path, to, recursive=wanted.recursive, overwrite=wanted.overwrite)
        with entry.activity.hold():
            done = await downloads.unless_gone(request.receive, copying)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(to),
                "entries": done.entries,
                "bytes": done.bytes,
                "skipped": done.skipped,
            }
        )

    @router.patch(
        "/sandboxes/{sandbox_id}/files",
        **operations.describe(
            summary="Change mode, owner or time",
            request=schemas.FileChange,
            answers={200: schemas.FileChanged},
            failures=_BUSY,
        ),
    )
    async def change_file(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.FileChange, context.settings.max_body_bytes)
        path = paths.asked(wanted.path, wanted.path_b64)
        tree = _tree(context, entry, wanted.user)
        change = trees.Change(
            mode=wanted.mode,
            uid=await _id(tree, owners.USERS, wanted.owner, "user"),
            gid=await _id(tree, owners.GROUPS, wanted.group, "group"),
            modified_at=_seconds(wanted.modified_at),
        )
        if change == trees.Change():
            raise errors.InvalidRequest("cannot change nothing: give 'mode', 'owner', 'group' or 'modified_at'")
        changing = tree.change(path, change, recursive=wanted.recursive)
        with entry.activity.hold():
            changed = await downloads.unless_gone(request.receive, changing)
        return answers.json({"sandbox_id": entry.text_id, **paths.fields(path), "changed": changed})


def _lookups(router: APIRouter, context: contexts.Context) -> None:
    @router.get(
        "/sandboxes/{sandbox_id}/files/find",
        **operations.describe(
            summary="Find files by name",
            query=schemas.FileFindQuery,
            answers={200: schemas.FileListing},
            failures=_BUSY,
        ),
    )
    async def find_files(request: Request, sandbox_id: str) -> Response:
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileFindQuery)
        path = routes_paths.asked(request, query)
        finding = searches.find(
            insides.files(entry),
            path,
            user=insides.user(entry, query.user),
            work=context.files.paces,
            glob=globs.Glob(query.pattern),
            kind=None if query.type is None else contract.FileKind(query.type),
            after=paths.read_cursor(query.cursor),
            limit=query.limit,
        )
        with _turn(context, entry, finding):
            found, more = await downloads.unless_gone(request.receive, finding)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                **paths.fields(path),
                "entries": [routes_paths.entry(one) for one in found],
                "next_cursor": paths.cursor(found[-1].path) if more else None,
            }
        )

    @router.get(
        "/sandboxes/{sandbox_id}/files/search",
        **operations.describe(
            summary="Search text in files",
            query=schemas.FileSearchQuery,
            answers={200: schemas.FileMatches},
            failures=_BUSY,
        ),
    )
    async def search_files(request: Request, sandbox_id: str) -> Response:
        """Files that are not text are passed over, and those that the user may not read. It ends after 30 seconds."""
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.FileSearchQuery)
        path = routes_paths.asked(request, query)
        searching = searches.search(
            insides.files(entry),
            path,
            user=insides.user(entry, query.user),
            work=context.files.paces,
            needle=searches.Needle(query.text, ignore_case=query.ignore_case),
            glob=None if query.pattern is None else globs.Glob(query.pattern),
            limit=query.limit,
        )
        with _turn(context, entry, searching):
            found = await downloads.unless_gone(request.receive, searching)
        matches = [
            {**paths.fields(match.path), "line": match.line, "column": match.column, "text": match.text}
            for match in found.matches
        ]
        return answers.json(
            {"sandbox_id": entry.text_id, **paths.fields(path), "matches": matches, "truncated": found.truncated}
        )


def _archives(router: APIRouter, context: contexts.Context) -> None:
    @router.get(
        "/sandboxes/{sandbox_id}/files/tar",
        **operations.describe(
            summary="Read a tree as a tar archive",
            query=schemas.TarQuery,
            answers={200: tuple(MEDIA_TYPES.values())},
            failures=_BUSY,
        ),
    )
    async def read_tar(request: Request, sandbox_id: str) -> Response:
        """Streams all that is below a directory, named as seen from there; or one file. Devices, FIFOs and sockets are
        left out.
        """
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.TarQuery)
        path = routes_paths.asked(request, query)
        packing = packings.Packing(
            insides.files(entry), user=insides.user(entry, query.user), skip_unreadable=query.skip_unreadable
        )
        pieces = _packed(context.files.turns, entry, packing, path)
        if query.compression == "gzip":
            pieces = packings.gzipped(pieces)
        return downloads.Stream(pieces, media_type=MEDIA_TYPES[query.compression])

    @router.put(
        "/sandboxes/{sandbox_id}/files/tar",
        **operations.describe(
            summary="Extract a tar archive",
            raw=True,
            query=schemas.TarExtractQuery,
            answers={200: schemas.TarExtracted},
            failures=[*routes_paths.FAILURES, errors.DiskFull],
        ),
    )
    async def write_tar(request: Request, sandbox_id: str) -> Response:
        """Extracts the body, as it comes, below a directory, which is made. It may be compressed with gzip. An archive
        with a name or a link that leads out is refused (such a symbolic link can be kept instead), as are devices; what
        came before stays.
        """
        entry = context.entry(request, sandbox_id)
        query = bodies.query(request, schemas.TarExtractQuery)
        path = routes_paths.asked(request, query)
        unpacking = unpackings.Unpacking(
            insides.files(entry),
            path,
            user=insides.user(entry, query.user),
            max_bytes=entry.spec.resources.disk_mib * _MIB or None,
            limit=walks.MAX_ENTRIES,
            keep_links=query.links == "keep",
        )
        with entry.activity.hold():
            done = await unpacking.run(inflows.Inflow(bodies.stream(request)))
        return answers.json(
            {"sandbox_id": entry.text_id, **paths.fields(path), "entries": done.entries, "bytes": done.bytes}
        )


def _tree(context: contexts.Context, entry: entries.Entry, user: str | None) -> trees.Tree:
    turn = functools.partial(context.files.turns.turn, entry)
    return trees.Tree(insides.files(entry), insides.user(entry, user), turn)


@contextlib.contextmanager
def _turn(context: contexts.Context, entry: entries.Entry, work: Coroutine[Any, Any, object]) -> Iterator[None]:
    """Hold a turn for work that has not begun; without one it never begins. Raises `RateLimited`."""
    try:
        with context.files.turns.turn(entry):
            yield
    finally:
        work.close()


async def _packed(
    turns: walks.Turns, entry: entries.Entry, packing: packings.Packing, path: str
) -> AsyncGenerator[bytes]:
    with turns.turn(entry):
        base, found = await packing.plan(path)
        async with contextlib.aclosing(packing.run(base, found)) as pieces:
            async for piece in pieces:
                yield piece


def _both(wanted: schemas.FileMove | schemas.FileCopy) -> tuple[str, str]:
    for name, text, exact in (("from", wanted.from_, wanted.from_b64), ("to", wanted.to, wanted.to_b64)):
        if (text is None) == (exact is None):
            raise errors.InvalidRequest(f"cannot tell which file: give either {name!r} or '{name}_b64'", field=name)
    return paths.asked(wanted.from_, wanted.from_b64), paths.asked(wanted.to, wanted.to_b64)


async def _id(tree: trees.Tree, place: str, name: str | int | None, kind: str) -> int | None:
    """Return the id of a user or group of the sandbox. Raises `NotFound`."""
    found = None if name is None else owners.number(name)
    if name is None or found is not None:
        return found
    try:
        file = await files.opened(tree.files, place, tree.user)
    except (errors.NotFound, errors.Forbidden, errors.InvalidRequest):
        content = b""
    else:
        try:
            content = await file.read(min(file.size, owners.MAX_BYTES))
        finally:
            file.close()
    found = owners.find(content, str(name))
    if found is None:
        raise errors.NotFound(f"no {kind} {str(name)[:80]!r} in this sandbox", kind=kind, id=str(name)[:80])
    return found


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise errors.InvalidRequest("cannot read 'modified_at': not RFC 3339", field="modified_at") from error
    if moment.tzinfo is None:
        raise errors.InvalidRequest("cannot read 'modified_at': no time zone", field="modified_at")
    return moment.timestamp()
