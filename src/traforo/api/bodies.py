"""Request bodies and queries: read within a limit, parsed in one pass, refused in words a caller can use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection, Request

from traforo.api import refusals
from traforo.domain import errors

LIMIT = 1024 * 1024
"""Most bytes of a body where nothing else is said."""
MAX_DIGITS = 18
"""Digits of the longest `Content-Length` that is believed: an exabyte less one."""

Model = TypeVar("Model", bound=BaseModel)


class Disconnected(Exception):
    """The caller went away while its request was being read; there is nobody left to answer."""


async def read(request: Request, limit: int = LIMIT) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is longer than `limit` bytes."""
    _check_length(request, limit)
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")  # nearly every request: one message
        if len(body) > limit:
            raise too_large(limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await request.receive()


async def read_json(request: Request, model: type[Model], limit: int = LIMIT) -> Model:
    """Return the body as a model; an empty body is `{}`. Raises `InvalidRequest` (with `field`) and `TooLarge`."""
    return parse(await read(request, limit), model)


async def stream(request: Request, limit: int | None = None) -> AsyncIterator[bytes]:
    """Yield a raw body piece by piece, never empty ones. Raises `TooLarge` past `limit` bytes, and `Disconnected`."""
    if limit is not None:
        _check_length(request, limit)
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if limit is not None and size > limit:
            raise too_large(limit)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def parse(body: bytes, model: type[Model]) -> Model:
    """Read JSON into a model; nothing at all is `{}`. Raises `InvalidRequest`."""
    try:
        return cast("Model", model.__pydantic_validator__.validate_json(body or b"{}"))
    except ValidationError as error:
        raise refusals.invalid(error, "body", model) from error


def query(connection: HTTPConnection, model: type[Model]) -> Model:
    """Read the query into a model. Raises `InvalidRequest` for a value that does not fit, and for a name given twice.

    Parameters that the model does not know are ignored.
    """
    values: dict[str, str] = {}
    if connection.scope["query_string"]:
        for name, value in connection.query_params.multi_items():
            if name not in model.model_fields:
                continue
            if name in values:
                raise errors.InvalidRequest(f"cannot read the query: {name!r} is given twice", field=name)
            values[name] = value
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise refusals.invalid(error, "query", model) from error


def length(header: bytes) -> int | None:
    """Read a `Content-Length`; None where it is no number of any use."""
    return int(header) if header.isdigit() and len(header) <= MAX_DIGITS else None


def too_large(limit: int) -> errors.TooLarge:
    """Make the error of a body over its limit."""
    return errors.TooLarge(f"cannot read the body: longer than {limit} bytes", limit=limit)


def _check_length(request: Request, limit: int) -> None:
    for name, value in request.scope["headers"]:
        if name == b"content-length" and (length(value) or 0) > limit:
            raise too_large(limit)
