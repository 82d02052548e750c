import asyncio
import json
import re
from typing import Any

import prometheus_client
import pytest
import structlog.testing
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from traforo.api import answers, applications, bodies, operations, pages, schemas
from traforo.domain import errors, ids
from traforo.telemetry import metrics


def build(*routers: Any, mode: Any = "prod") -> applications.Application:
    measured = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
    return applications.build("test", routers, measured=measured, mode=mode, description="For tests.")


async def get(
    app: applications.Application, path: str, method: str = "GET", accept: str = "*/*"
) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    sent_headers = [(b"accept", accept.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": sent_headers, "query_string": b""}
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def app() -> applications.Application:
    router = operations.router(tags=["execs"])

    @router.post(
        "/sandboxes/{sandbox_id}/exec",
        **operations.describe(
            summary="Run a command",
            request=schemas.ExecCreate,
            answers={202: schemas.ExecStarted, 200: (schemas.Exec, "text/plain")},
            failures=[errors.NotFound, errors.StartFailed, errors.SyntaxRejected],
        ),
    )
    async def start_exec(request: Request, sandbox_id: str) -> Response:
        """Says at once how to follow it."""
        body = await bodies.read_json(request, schemas.ExecCreate)
        return answers.json({"sandbox_id": sandbox_id, "command": body.command}, 202)

    @router.get(
        "/sandboxes",
        **operations.describe(summary="List", query=schemas.SandboxQuery, answers={200: schemas.SandboxPage}),
    )
    async def list_sandboxes(request: Request) -> Response:
        return answers.json({})

    @router.put(
        "/files", **operations.describe(summary="Write", raw=True, request=schemas.FileWrite, answers={204: None})
    )
    async def write(request: Request) -> Response:
        return answers.nothing()

    @router.get("/ports/{port}", **operations.describe(summary="Look", answers={204: None}))
    async def look(request: Request, port: str) -> Response:
        return answers.nothing()

    @router.get("/execs/{exec_id}", **operations.describe(summary="Read", answers={204: None}))
    async def read(request: Request, exec_id: str) -> Response:
        return answers.nothing()

    @router.delete("/elsewhere", **operations.describe(summary="Go", answers={307: None}, public=True))
    async def go(request: Request) -> Response:
        return answers.redirect("http://w")

    return build(router)


@pytest.fixture
def document(app: applications.Application) -> dict[str, Any]:
    return app.openapi()


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    """Its head names the API."""
    assert document["openapi"].startswith("3.1.")
    assert (document["info"]["title"], document["info"]["description"]) == ("test", "For tests.")


def test_document_is_closed(document: dict[str, Any]) -> None:
    """Every reference leads to a schema, every schema is referred to, and nothing of the tooling is left."""
    text = json.dumps(document)
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == set(document["components"]["schemas"])
    assert operations.COMPONENTS not in text
    assert "HTTPValidationError" not in text


def test_route_describes_what_it_reads_and_answers(document: dict[str, Any]) -> None:
    """Body, parameters, answers and errors: the real models, and one form for every error status."""
    operation = document["paths"]["/sandboxes/{sandbox_id}/exec"]["post"]
    assert operation["operationId"] == "start_exec"
    assert (operation["summary"], operation["description"]) == ("Run a command", "Says at once how to follow it.")
    [parameter] = operation["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("sandbox_id", "path", True)
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ExecCreate")
    assert operation["requestBody"]["required"] is False
    assert list(operation["responses"]) == ["200", "202", "400", "401", "404", "413", "422", "500"]
    assert operation["responses"]["422"]["description"] == "`start_failed`, `syntax_error`"
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/plain"}
    for status, answer in operation["responses"].items():
        schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schema == {"200": "Exec", "202": "ExecStarted"}.get(status, "Problem")


def test_query_becomes_parameters(document: dict[str, Any]) -> None:
    """Each with its limits, default and description."""
    found = {one["name"]: one for one in document["paths"]["/sandboxes"]["get"]["parameters"]}
    assert set(found) == {"limit", "cursor", "state"}
    assert found["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert found["state"]["schema"] == {"$ref": "#/components/schemas/SandboxState"}
    assert found["cursor"]["description"] == "`next_cursor` of the page before."


def test_parameters_of_a_path_are_described(document: dict[str, Any]) -> None:
    """By what they are, where a route reads them as text."""
    [port] = document["paths"]["/ports/{port}"]["get"]["parameters"]
    assert port["schema"] == {"type": "integer", "minimum": 1, "maximum": 65535}
    assert (port["in"], port["example"]) == ("path", 8000)


def test_ids_in_a_path_are_described(document: dict[str, Any]) -> None:
    """By patterns that every id of ours has, in both spellings, and nothing that is refused at sight."""
    [sandbox] = document["paths"]["/sandboxes/{sandbox_id}/exec"]["post"]["parameters"]
    found = ids.new_sandbox_id(ids.worker_hash("one.example"))
    for text in (str(found), found.dns, sandbox["example"]):
        assert re.search(sandbox["schema"]["pattern"], text)
        ids.parse_sandbox_id(text)
    for text in ("", "x", f"{found} ", str(found).upper(), f"{found}/exec"):
        assert not re.search(sandbox["schema"]["pattern"], text)
    [other] = document["paths"]["/execs/{exec_id}"]["get"]["parameters"]
    assert re.search(other["schema"]["pattern"], ids.new_exec_id())
    ids.parse_exec_id(other["example"])


def test_path_in_a_body_is_described(document: dict[str, Any]) -> None:
    """A caller can know before it asks that a path is absolute, and how long it may be."""
    cwd = document["components"]["schemas"]["ExecCreate"]["properties"]["cwd"]["anyOf"][0]
    assert cwd == {"type": "string", "pattern": "^/", "maxLength": schemas.MAX_PATH_BYTES}


def test_raw_body_stands_beside_json(document: dict[str, Any]) -> None:
    """A file comes either way."""
    body = document["paths"]["/files"]["put"]["requestBody"]
    assert (set(body["content"]), body["required"]) == ({"application/octet-stream", "application/json"}, True)


def test_credential_is_described(document: dict[str, Any]) -> None:
    """Routes that ask for one say so; those that do not, do not."""
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["paths"]["/sandboxes"]["get"]["security"] == [{"bearer": []}, {}]
    assert "security" not in document["paths"]["/elsewhere"]["delete"]
    assert "401" not in document["paths"]["/healthz"]["get"]["responses"]


def test_redirect_says_where(document: dict[str, Any]) -> None:
    """A 307 has no body, and a header that matters."""
    answer = document["paths"]["/elsewhere"]["delete"]["responses"]["307"]
    assert (set(answer["headers"]), "content" in answer) == ({"Location"}, False)


def test_answer_without_a_body_has_none_described(document: dict[str, Any]) -> None:
    """204 is empty."""
    assert "content" not in document["paths"]["/files"]["put"]["responses"]["204"]


async def test_endpoint_gets_request_and_parameters(app: applications.Application) -> None:
    """And nothing in between."""
    status, _, body = await get(app, "/sandboxes/sbx_1/exec", "POST")
    assert (status, json.loads(body)) == (202, {"sandbox_id": "sbx_1", "command": "true"})


async def test_health_needs_no_credential(app: applications.Application) -> None:
    """A probe has none."""
    status, _, body = await get(app, "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_metrics_need_no_credential(app: applications.Application) -> None:
    """Prometheus has none either; the text is of the type it expects."""
    status, headers, body = await get(app, "/metrics")
    assert (status, headers["content-type"]) == (200, metrics.CONTENT_TYPE)
    assert b"\nservice_auth_mode 1.0\n" in body


async def test_document_is_served(app: applications.Application) -> None:
    """The same document, encoded once."""
    first, second = await asyncio.gather(get(app, "/openapi.json"), get(app, "/openapi.json"))
    assert json.loads(first[2]) == app.openapi()
    assert first[2] == second[2]


@pytest.mark.parametrize("path", pages.ALL)
async def test_pages_are_served_under_a_strict_policy(app: applications.Application, path: str) -> None:
    """The browser itself refuses anything from elsewhere, and any script in the text."""
    status, headers, body = await get(app, path)
    assert (status, body) == (200, pages.ALL[path].content)
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/openapi.json", *pages.ALL])
async def test_documents_answer_head(app: applications.Application, path: str) -> None:
    """Probes and caches ask for the head alone; the server leaves out the body."""
    (status, headers, _), (expected, others, _) = await get(app, path, "HEAD"), await get(app, path)
    assert (status, headers["content-type"]) == (expected, others["content-type"]) == (200, others["content-type"])


async def test_entrance_leads_programs_to_the_documentation(app: applications.Application) -> None:
    """Whoever has nothing but the address finds out what is there."""
    status, headers, body = await get(app, "/")
    found = json.loads(body)
    assert (status, headers["vary"]) == (200, "accept")
    assert found == {"name": "test", "version": app.version, "docs": "/docs", "openapi": "/openapi.json"}
    for name in ("docs", "openapi"):
        assert (await get(app, found[name]))[0] == 200


async def test_entrance_sends_browsers_to_the_documentation(app: applications.Application) -> None:
    """A page is what they can show."""
    status, headers, _ = await get(app, "/", accept="text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
    assert (status, headers["location"], headers["vary"]) == (307, "/docs", "accept")


def test_dev_mode_is_warned_of() -> None:
    """Once, at start; and the metric shows it for as long as it lasts."""
    with structlog.testing.capture_logs() as lines:
        build(mode="dev")
        build(mode="prod")
    assert [(line["log_level"], line["auth_mode"]) for line in lines] == [("warning", "dev")]


async def test_plain_route_takes_any_method() -> None:
    """An ASGI application below a path is called for whatever comes."""

    class Everything:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            text = f"{scope['method']} {scope['path_params']['rest']}"
            await PlainTextResponse(text)(scope, receive, send)

    router = operations.router()
    router.routes.append(Route("/below/{rest:path}", Everything(), include_in_schema=False))
    assert (await get(build(router), "/below/a/b", "BREW"))[2] == b"BREW a/b"


async def test_route_of_another_kind_is_refused() -> None:
    """What could not be found later is an error at the start."""
    router = operations.router()
    router.routes.append(Mount("/below", app=PlainTextResponse("x")))
    with pytest.raises(TypeError, match="cannot serve"):
        await get(build(router), "/healthz")
