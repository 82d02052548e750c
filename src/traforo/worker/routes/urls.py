"""HTTP route that signs URLs: each opens one file of one sandbox for one method, without any other credential."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from traforo.api import answers, bodies, operations, schemas, tokens
from traforo.domain import clocks, errors
from traforo.worker.files import paths
from traforo.worker.routes import contexts
from traforo.worker.routes import paths as routes_paths

MAX_PATH_BYTES = 2048
"""Longest path of a signed URL, which has to fit into what carries URLs."""


def build(context: contexts.Context) -> APIRouter:
    """Make the route over these services."""
    router = operations.router(tags=["files"])

    @router.post(
        "/sandboxes/{sandbox_id}/files/signed-url",
        **operations.describe(
            summary="Sign a URL of a file",
            request=schemas.SignedUrlCreate,
            answers={200: schemas.SignedUrl},
            failures=routes_paths.FAILURES,
        ),
    )
    async def sign_url(request: Request, sandbox_id: str) -> Response:
        """Whoever has the URL can use it until it expires, or the sandbox ends; it cannot be taken back otherwise. The
        file need not exist.
        """
        entry = context.entry(request, sandbox_id)
        wanted = await bodies.read_json(request, schemas.SignedUrlCreate, context.settings.max_body_bytes)
        path = paths.exact(paths.asked(wanted.path, wanted.path_b64))
        if len(path) > MAX_PATH_BYTES:
            raise errors.TooLarge(
                f"cannot sign a path of more than {MAX_PATH_BYTES} bytes", limit=MAX_PATH_BYTES, field="path"
            )
        if wanted.max_bytes is not None and wanted.method == "GET":
            raise errors.InvalidRequest("cannot limit what is read: 'max_bytes' is for PUT", field="max_bytes")
        expires_at = context.clock.now() + wanted.expires_in_seconds
        token = context.authority.sign_file(
            tokens.FileGrant(
                sandbox_id=entry.text_id,
                client_id=entry.owner,
                method=wanted.method,
                path=path,
                user=wanted.user,
                max_bytes=wanted.max_bytes,
                expires_at=expires_at,
            )
        )
        url = f"{context.place.base_url}/sandboxes/{entry.text_id}/files?signature={token}"
        return answers.json({"url": url, "method": wanted.method, "expires_at": clocks.rfc3339(expires_at)})

    return router
