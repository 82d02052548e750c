"""The OpenAPI 3.1 document of an application: what the framework finds, put right.

Adds the models that routes read by themselves, the credential and the error form; takes out the answers that the
framework believes in and this API never gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from traforo.api import operations

_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": (
        "HS256 with the claims `client_id`, `iss`, `aud`, `exp`, `iat` and `jti`; or the token of one sandbox, for the "
        "routes below it. None in `dev` mode."
    ),
}
_PATH_PARAMETERS: dict[str, tuple[str, str | int]] = {
    "sandbox_id": (
        "Id of a sandbox, in either spelling.",
        "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789",
    ),
    "exec_id": ("Id of an exec.", "exec_01K6Z8Q4T3V7WXYZ0123456789"),
    "context_id": ("Id of a code context.", "ctx_01K6Z8Q4T3V7WXYZ0123456789"),
    "watch_id": ("Id of a watch.", "watch_01K6Z8Q4T3V7WXYZ0123456789"),
    "port": ("TCP port that a server in the sandbox listens on.", 8000),
    "worker_id": ("Name of a worker.", "worker_1"),
}
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "sandbox_id": {
        "type": "string",
        "pattern": (
            "^(sbx_[0-9a-f]{32}_[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}|[a-z2-7]{26}[0-7][0-9a-hjkmnp-tv-z]{25})$"
        ),
    },
    "exec_id": {"type": "string", "pattern": "^exec_[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
}
"""What routes find out of the text of a parameter."""
_NEVER = ("HTTPValidationError", "ValidationError")
_PREFIX = operations.REF.format(model="")


def build(application: FastAPI) -> dict[str, Any]:
    """Return the document as JSON values."""
    document = get_openapi(
        title=application.title,
        version=application.version,
        summary=application.summary,
        description=application.description,
        routes=application.routes,
        separate_input_output_schemas=False,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"bearer": _BEARER}
    known: dict[str, Any] = components.setdefault("schemas", {})
    for operation in _operations(document):
        for name, schema in operation.pop(operations.COMPONENTS, {}).items():
            known.setdefault(name, schema)
        _correct(operation)
    for name in _NEVER:
        known.pop(name, None)
    components["schemas"] = {name: _plain(schema) for name, schema in sorted(known.items())}
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document.get("paths", {}).values():
        yield from (operation for operation in item.values() if isinstance(operation, dict))


def _correct(operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    found = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if found.get("$ref") == _PREFIX + "HTTPValidationError":
        del responses["422"]
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _plain(parameter["schema"])
        if parameter["in"] == "path" and parameter["name"] in _PATH_PARAMETERS:
            parameter["description"], parameter["example"] = _PATH_PARAMETERS[parameter["name"]]
            parameter["schema"] = dict(_PATH_SCHEMAS.get(parameter["name"], parameter["schema"]))
    for response in responses.values():
        for media in response.get("content", {}).values():
            media.get("schema", {}).pop("title", None)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop the titles that are made from names, and the line breaks of docstrings."""
    found = {name: value for name, value in schema.items() if not (name == "title" and isinstance(value, str))}
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    for name in ("properties", "$defs"):
        if name in found:
            found[name] = {key: _plain(value) for key, value in found[name].items()}
    for name in ("anyOf", "allOf", "oneOf"):
        if name in found:
            found[name] = [_plain(value) for value in found[name]]
    for name in ("items", "additionalProperties"):
        if isinstance(found.get(name), dict):
            found[name] = _plain(found[name])
    return found
