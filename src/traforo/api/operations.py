"""How a route is declared: a lean call at run time, a complete description in openapi.json.

A route takes the request and its path parameters and returns a response; it reads body and query itself, through
`bodies`. The framework's own analysis of parameters is used for the path alone, so nothing is validated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, params
from fastapi.types import DecoratedCallable
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from traforo.api import problems, schemas
from traforo.domain import errors

REF = "#/components/schemas/{model}"
COMPONENTS = "x-components"
"""Key under which an operation carries schemas that belong among the components; `documents` moves them there."""

Answer = type[BaseModel] | str | None
"""Model of a JSON answer, a media type of another one, or None where there is no body."""
Answers = Answer | tuple[Answer, ...]
"""One answer, or those between which the request chooses."""

_PHRASES = {200: "Done", 201: "Made", 202: "Begun", 204: "Done", 307: "Elsewhere: the same request to `Location`"}


class Router(APIRouter):
    """A router whose WebSocket endpoints take a `sockets.Socket` and the parameters of their path."""

    def websocket(
        self, path: str, name: str | None = None, *, dependencies: Sequence[params.Depends] | None = None
    ) -> Callable[[DecoratedCallable], DecoratedCallable]:
        """Declare a WebSocket; `dependencies` are refused, as everywhere."""
        if dependencies is not None:
            raise TypeError("dependencies have no effect")

        def declare(function: DecoratedCallable) -> DecoratedCallable:
            self.routes.append(WebSocketRoute(self.prefix + path, function, name=name))
            return function

        return declare


def router(*, tags: Iterable[str] = (), prefix: str = "") -> Router:
    """Make a router. `tags` group them in the documentation; the endpoint's name is the operation's id."""
    return Router(
        prefix=prefix,
        tags=list(tags),
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )


def describe(
    *,
    summary: str,
    answers: Mapping[int, Answers],
    request: type[BaseModel] | None = None,
    raw: bool = False,
    query: type[BaseModel] | None = None,
    failures: Iterable[type[errors.TraforoError]] = (),
    public: bool = False,
) -> dict[str, Any]:
    """Return the keyword arguments that describe a route: `@router.post("/sandboxes", **operations.describe(...))`.

    Args:
        summary: What it does, in a few words; the endpoint's docstring says more.
        answers: By status: the model of a JSON body, a media type (`application/octet-stream`), None for no body, or
            several of them.
        request: Model of its JSON body, if it takes one.
        raw: Whether it takes raw bytes (as well).
        query: Model of its query, if it reads one.
        failures: What it may raise beyond what every route may.
        public: Whether it asks for no credential.
    """
    first = next(iter(answers))
    extra: dict[str, Any] = {COMPONENTS: _components(request, query)}
    if request is not None or raw:
        extra["requestBody"] = _request_body(request, raw=raw)
    if query is not None:
        extra["parameters"] = _parameters(query)
    if not public:
        extra["security"] = [{"bearer": []}, {}]
    common: list[type[errors.TraforoError]] = [errors.Internal]
    if not public:
        common += [errors.InvalidRequest, errors.Unauthenticated]
    if request is not None or raw:
        common += [errors.TooLarge]
    responses = {status: _answer(status, answer) for status, answer in answers.items()}
    return {
        "summary": summary,
        "status_code": first,
        "response_model": None,
        "response_class": Response,
        "responses": {**responses, **_failures([*common, *failures])},
        "openapi_extra": extra,
    }


def _components(request: type[BaseModel] | None, query: type[BaseModel] | None) -> dict[str, Any]:
    """Return the schema of a body and all that it and a query refer to; a query itself becomes parameters."""
    found: dict[str, Any] = {}
    for model in (request, query):
        if model is not None:
            schema = model.model_json_schema(ref_template=REF)
            found |= schema.pop("$defs", {})
            if model is request:
                found[model.__name__] = schema
    return found


def _answer(status: int, answer: Answers) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _PHRASES.get(status, "Done")}
    if status == 307:
        found["headers"] = {"Location": {"schema": {"type": "string"}, "description": "where to send it"}}
    for one in answer if isinstance(answer, tuple) else (answer,):
        if isinstance(one, str):
            schema = {"type": "string"} if one.startswith("text/") else {"type": "string", "format": "binary"}
            found.setdefault("content", {})[one] = {"schema": schema}
        elif one is not None:
            found["model"] = one
    return found


def _failures(kinds: Iterable[type[errors.TraforoError]]) -> dict[int, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        codes = by_status.setdefault(problems.STATUS[kind], [])
        if kind.code not in codes:
            codes.append(kind.code)
    return {
        status: {"model": schemas.Problem, "description": ", ".join(f"`{code}`" for code in codes)}
        for status, codes in sorted(by_status.items())
    }


def _request_body(request: type[BaseModel] | None, *, raw: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if raw:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    if request is not None:
        content["application/json"] = {"schema": {"$ref": REF.format(model=request.__name__)}}
    required = raw or (request is not None and any(field.is_required() for field in request.model_fields.values()))
    return {"content": content, "required": required}


def _parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema(ref_template=REF)
    required = schema.get("required", [])
    return [_parameter(name, dict(found), required=name in required) for name, found in schema["properties"].items()]


def _parameter(name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    description = schema.pop("description", None)
    schema.pop("title", None)
    if schema.get("default", ...) is None:
        del schema["default"]
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:  # a query cannot say null, only leave out
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | options[0]
    found = {"name": name, "in": "query", "required": required, "schema": schema}
    return found | ({"description": description} if description else {})
