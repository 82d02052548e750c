"""From an error to an answer: the only place that knows which status a code has.

Whatever goes wrong in a request ends here, an unknown route and a defect of ours included, so that a caller meets one
form of error everywhere. Of a defect it is told nothing but the request id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from traforo.domain import errors


class MethodNotAllowed(errors.TraforoError):
    """The route exists, with other methods. Field `allow` lists them."""

    code = "method_not_allowed"


STATUS: Mapping[type[errors.TraforoError], int] = {
    errors.InvalidRequest: 400,
    errors.MalformedId: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.Lost: 410,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.RangeNotSatisfiable: 416,
    errors.SyntaxRejected: 422,
    errors.StartFailed: 422,
    errors.RateLimited: 429,
    errors.Internal: 500,
    errors.NoCapacity: 503,
    errors.WorkerUnavailable: 503,
    errors.PortUnreachable: 502,
    errors.UpstreamFailed: 502,
    errors.UpstreamTimeout: 504,
    errors.DiskFull: 507,
}
"""Status of every error a caller can meet; a subclass has that of the nearest class above it."""

_RETRY = {429: "1", 503: "1"}
"""Seconds after which it is worth trying again, by status."""


def status(error: errors.TraforoError) -> int:
    """Return the status of an error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def code(error: errors.TraforoError) -> str:
    """Return the code that a caller is told."""
    return error.code


def translated(error: Exception) -> errors.TraforoError:
    """Return an error of ours for any exception: those of the framework in our words, everything else as `Internal`."""
    if isinstance(error, errors.TraforoError):
        return error
    if isinstance(error, HTTPException):
        return _of_framework(error)
    return errors.Internal("an unexpected error; the log has more under the request id")


def answer(error: errors.TraforoError, request_id: str) -> Response:
    """Make the answer to a request that failed."""
    found = status(error)
    headers: dict[str, str] = {}
    if found == 401:
        headers["www-authenticate"] = "Bearer"
    if found in _RETRY:
        headers["retry-after"] = _RETRY[found]
    if isinstance(error, MethodNotAllowed) and "allow" in error.fields:
        headers["allow"] = error.fields["allow"]
    if isinstance(error, errors.RangeNotSatisfiable) and "size" in error.fields:
        headers["content-range"] = f"bytes */{error.fields['size']}"
    return Response(body(error, request_id), found, headers, media_type="application/json")


def body(error: errors.TraforoError, request_id: str) -> bytes:
    """Encode the body of an error."""
    content: dict[str, Any] = {"code": error.code, "message": error.message, "request_id": request_id}
    if error.hint is not None:
        content["hint"] = error.hint
    content |= {name: value for name, value in error.fields.items() if name not in content}
    try:
        return msgspec.json.encode({"error": content})
    except (UnicodeEncodeError, TypeError, ValueError):
        # Text from a sandbox may hold stray bytes as surrogates; they are told as escapes, and never cost the answer.
        return json.dumps({"error": content}, default=repr).encode()


def _of_framework(error: HTTPException) -> errors.TraforoError:
    if error.status_code == 404:
        return errors.NotFound("no such route", kind="route")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed("cannot use this method here", allow=allow)
    if error.status_code < 500:
        return errors.InvalidRequest(f"cannot read the request: {error.detail}")
    return errors.Internal("an unexpected error; the log has more under the request id")
