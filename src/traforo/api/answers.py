"""Answers made in one pass: whatever a route returns is encoded to JSON once, straight to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Scope

_encoder = msgspec.json.Encoder()


def encode(content: object) -> bytes:
    """Encode a pydantic model, or anything msgspec knows (dicts, lists, dataclasses, structs), as JSON."""
    if isinstance(content, BaseModel):
        return content.__pydantic_serializer__.to_json(content)
    return _encoder.encode(content)


def json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON. `content` is not validated: routes build what `schemas` describes, and tests hold them to
    it.
    """
    return Response(encode(content), status, headers, media_type="application/json")


def nothing(headers: Mapping[str, str] | None = None) -> Response:
    """Answer 204."""
    return Response(status_code=204, headers=headers)


def redirect(location: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer 307: the same method and body, elsewhere."""
    return Response(status_code=307, headers={"location": location, "cache-control": "no-store"} | dict(headers or {}))


def endless(scope: Scope) -> None:
    """Note that the answer to this request goes on until somebody ends it, so that a server that stops does."""
    scope["state"]["endless"] = True


def is_endless(scope: Mapping[str, Any]) -> bool:
    """Tell whether that was noted."""
    return bool(scope.get("state", {}).get("endless"))
