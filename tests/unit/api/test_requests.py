import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import prometheus_client
import pytest
import structlog.testing
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from traforo.api import answers, applications, bodies, limits, operations, requests, uploads
from traforo.domain import errors
from traforo.telemetry import logs, metrics, traces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Headers = dict[str, str]


class Answer:
    """What came back."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self.status: int = messages[0]["status"]
        self.pairs = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
        self.headers = dict(self.pairs)
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Site:
    """One application and a way to call it."""

    def __init__(self, mode: Any = "prod") -> None:
        self.metrics = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
        self.seen: list[dict[str, Any]] = []
        self.reads = 0
        router = operations.router()

        @router.post("/echo")
        async def echo(request: Request) -> Response:
            self.seen.append(
                {"trace": traces.current(), "bound": dict(logs.bound()), "id": requests.request_id(request)}
            )
            return answers.json({"bytes": len(await bodies.read(request, 2**30))})

        @router.put("/sandboxes/{sandbox_id}/files")
        async def put(request: Request, sandbox_id: str) -> Response:
            if sandbox_id == "absent":
                raise errors.NotFound("no sandbox", kind="sandbox", id=sandbox_id)
            return answers.json({"bytes": sum([len(piece) async for piece in bodies.stream(request)])})

        @router.get("/fail/{how}")
        async def fail(request: Request, how: str) -> Response:
            error = FAILURES[how]()
            raise error

        @router.get("/break")
        async def break_off(request: Request) -> Response:
            async def content() -> Any:
                yield b"half"
                raise OSError("gone")

            return StreamingResponse(content())

        self.app = applications.build(
            "test", [router], measured=self.metrics, mode=mode, body_limits=limits.worker(), names=["here.example"]
        )

    async def call(
        self,
        method: str = "POST",
        path: str = "/echo",
        *pieces: bytes,
        headers: Headers | None = None,
        more: Sequence[tuple[bytes, bytes]] = (),
        end: bool = True,
    ) -> Answer:
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces or (b"",)]
        if end:
            messages[-1]["more_body"] = False
        left = iter(messages)

        async def receive() -> dict[str, Any]:
            self.reads += 1
            try:
                return next(left)
            except StopIteration:
                if not end:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}

        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [*((name.encode(), value.encode()) for name, value in (headers or {}).items()), *more]
        scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"secret=1"}
        await self.app(scope, receive, send)  # type: ignore[arg-type] # plain dictionaries are what a server sends
        return Answer(sent) if sent else Answer([{"status": 0, "headers": []}])


FAILURES: dict[str, Callable[[], Exception]] = {
    "defect": lambda: ZeroDivisionError("inner"),
    "expired": lambda: errors.Unauthenticated("no", reason="expired"),
    "owner": lambda: errors.Forbidden("no", kind="sandbox", id="x"),
    "mode": lambda: errors.Forbidden("no", path="/root"),
    "disconnect": bodies.Disconnected,
}


@pytest.fixture
def site() -> Site:
    return Site()


def count(site: Site, name: str, **found: str) -> float:
    return site.metrics.registry.get_sample_value(name, found) or 0.0


# ----------------------------------------------------------------------------------------------------- request ids


@pytest.mark.parametrize("given", ["abc", "a.B_c-9", "x" * 128])
async def test_callers_id_is_kept(site: Site, given: str) -> None:
    """The answer carries it, and the request knows it."""
    answer = await site.call(headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == site.seen[0]["id"] == site.seen[0]["bound"]["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 129, "a\nb", "a/b", '"'])
async def test_id_of_another_form_is_replaced(site: Site, given: str) -> None:
    """What could break a log or a header is not taken over; the request gets a ULID."""
    answer = await site.call(headers={"x-request-id": given})
    assert len(answer.headers["x-request-id"]) == 26
    assert answer.headers["x-request-id"] == site.seen[0]["id"]


@pytest.mark.parametrize(
    "method, path, status, code",
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/echo", 405, "method_not_allowed"),
        ("GET", "/fail/defect", 500, "internal"),
        ("GET", "/fail/expired", 401, "unauthenticated"),
    ],
)
async def test_every_error_has_the_form_and_the_id(site: Site, method: str, path: str, status: int, code: str) -> None:
    """Unknown routes and defects included."""
    answer = await site.call(method, path, headers={"x-request-id": "r1"})
    assert (answer.status, answer.headers["x-request-id"]) == (status, "r1")
    assert (answer.error["code"], answer.error["request_id"]) == (code, "r1")
    assert answer.headers["content-type"] == "application/json"


async def test_method_not_allowed_says_which_are(site: Site) -> None:
    """HTTP asks for the header `Allow`."""
    assert (await site.call("PUT", "/echo")).headers["allow"] == "POST"


async def test_answer_to_head_has_no_body(site: Site) -> None:
    """Its headers say what the body would have been."""
    answer = await site.call("HEAD", "/nowhere")
    assert (answer.status, answer.body) == (404, b"")
    assert int(answer.headers["content-length"]) > 0


# --------------------------------------------------------------------------------------------------------- traces


async def test_callers_trace_goes_on(site: Site) -> None:
    """Same trace, a span of our own, and both in every log line."""
    await site.call(headers={"traceparent": PARENT, "tracestate": "a=1"})
    [seen] = site.seen
    assert (seen["trace"].trace_id, seen["trace"].state) == (PARENT[3:35], "a=1")
    assert seen["trace"].span_id != PARENT[36:52]
    assert (seen["bound"]["trace_id"], seen["bound"]["span_id"]) == (PARENT[3:35], seen["trace"].span_id)


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}, {"traceparent": "\u00ff"}])
async def test_request_without_a_trace_begins_one(site: Site, headers: Headers) -> None:
    """A broken header is as none."""
    await site.call(headers=headers)
    assert len(site.seen[0]["trace"].trace_id) == 32


async def test_nothing_of_a_request_stays_behind(site: Site) -> None:
    """Ids of one request never appear in lines of the next."""
    await site.call(headers={"x-request-id": "r1"})
    assert (traces.current(), logs.bound()) == (None, {})


# ----------------------------------------------------------------------------------------------- log lines, metrics


async def test_one_line_a_request(site: Site) -> None:
    """Method, path and status; nothing of the query, which may hold a placement or a path."""
    with structlog.testing.capture_logs() as lines:
        await site.call("POST", "/echo")
    [line] = lines
    assert line.pop("ms") >= 0
    assert line == {
        "component": "traforo.api.requests",
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": "/echo",
        "status": 200,
    }


async def test_probes_are_quiet(site: Site) -> None:
    """A probe every few seconds is not worth a line, unless it fails."""
    with structlog.testing.capture_logs() as lines:
        await site.call("GET", "/healthz")
        await site.call("POST", "/healthz")
    assert [(line["log_level"], line["status"]) for line in lines] == [("info", 405)]


async def test_long_path_is_cut_in_the_log(site: Site) -> None:
    """A request cannot make a line as long as it likes."""
    with structlog.testing.capture_logs() as lines:
        await site.call("GET", "/" + "x" * 5000)
    assert len(lines[0]["path"]) == 512


async def test_defect_is_logged_with_its_traceback_and_told_without(site: Site) -> None:
    """Whoever operates it sees everything, whoever calls it the request id."""
    with structlog.testing.capture_logs() as lines:
        answer = await site.call("GET", "/fail/defect")
    assert "inner" not in answer.body.decode()
    assert [(line["log_level"], line["event"]) for line in lines] == [("error", "request failed"), ("info", "request")]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("path, status", [("/echo", "200"), ("/nowhere", "404"), ("/fail/defect", "500")])
async def test_every_request_is_measured(site: Site, path: str, status: str) -> None:
    """By status; an unknown route makes no series of its own."""
    await site.call("POST" if path == "/echo" else "GET", path)
    assert count(site, "worker_http_request_duration_seconds_count", status_code=status) == 1


@pytest.mark.parametrize(
    "how, reason, expected", [("expired", "expired", 1), ("owner", "forbidden", 1), ("mode", "forbidden", 0)]
)
async def test_refused_credentials_are_counted(site: Site, how: str, reason: str, expected: int) -> None:
    """By reason. A file that its mode protects is no failure of a credential."""
    await site.call("GET", f"/fail/{how}")
    assert count(site, "worker_auth_failures_total", reason=reason) == expected


async def test_caller_who_left_gets_no_answer(site: Site) -> None:
    """There is nobody to send it to; log and metrics know."""
    with structlog.testing.capture_logs() as lines:
        answer = await site.call("GET", "/fail/disconnect")
    assert (answer.status, lines[-1]["status"]) == (0, 499)
    assert count(site, "worker_http_request_duration_seconds_count", status_code="499") == 1


async def test_broken_answer_is_not_completed(site: Site) -> None:
    """The exception goes on to the server, which closes the connection: half is not taken for all."""
    with structlog.testing.capture_logs() as lines, pytest.raises(OSError, match="gone"):
        await site.call("GET", "/break")
    assert [line["event"] for line in lines] == ["answer broken off", "request"]


async def test_browser_is_told_not_to_guess_types(site: Site) -> None:
    """A file from a sandbox is not to be run as a page of this origin."""
    assert (await site.call()).headers["x-content-type-options"] == "nosniff"


# ---------------------------------------------------------------------------------------------------------- bodies


async def test_body_that_says_it_is_too_long_is_refused_unread(site: Site) -> None:
    """Nothing of it is read when it would take too long to drain, and the connection closes."""
    length = str(uploads.DRAIN_BYTES * 100)
    answer = await site.call("POST", "/echo", headers={"content-length": length, "expect": "100-continue"})
    assert (answer.status, answer.error["limit"], site.reads) == (413, limits.DEFAULT, 0)
    assert answer.headers["connection"] == "close"


async def test_rest_of_a_small_body_is_left_to_the_server(site: Site) -> None:
    """A body that is only somewhat too long is thrown away behind the answer, and the connection lives on."""
    answer = await site.call("POST", "/echo", headers={"content-length": str(2 * limits.DEFAULT)})
    assert (answer.status, "connection" in answer.headers, site.reads) == (413, False, 0)


async def test_body_of_unknown_length_is_counted(site: Site) -> None:
    """It is refused at the piece that is too much; the rest is drained before the connection closes."""
    pieces = [b"x" * 2**19] * 5
    answer = await site.call("POST", "/echo", *pieces, headers={"transfer-encoding": "chunked"})
    assert (answer.status, answer.headers["connection"], site.reads) == (413, "close", 5)
    assert [message.get("more_body", False) for message in answer.messages[1:]] == [True, False]


async def test_body_of_unknown_length_within_the_limit(site: Site) -> None:
    """Chunks are as good as a length."""
    answer = await site.call("POST", "/echo", b"x" * 2**19, b"x" * 2**19, headers={"transfer-encoding": "chunked"})
    assert (answer.status, json.loads(answer.body), "connection" in answer.headers) == (200, {"bytes": 2**20}, False)


async def test_draining_is_bounded(site: Site) -> None:
    """A sender without an end is cut off."""
    pieces = [b"x" * 2**20] * 100
    answer = await site.call(
        "PUT", "/sandboxes/absent/files", *pieces, headers={"transfer-encoding": "chunked"}, end=False
    )
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    assert site.reads == uploads.DRAIN_BYTES // 2**20


async def test_draining_takes_bounded_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender who sends nothing more is not waited for."""
    monkeypatch.setattr(uploads, "DRAIN_SECONDS", 0.01)
    answer = await site.call(
        "PUT", "/sandboxes/absent/files", b"x", headers={"transfer-encoding": "chunked"}, end=False
    )
    assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_raw_upload_has_no_limit(site: Site) -> None:
    """Whoever reads it sets one; here it is streamed."""
    pieces = [b"x" * 2**20] * 12
    answer = await site.call("PUT", "/sandboxes/x/files", *pieces, headers={"content-length": str(12 * 2**20)})
    assert (answer.status, json.loads(answer.body)) == (200, {"bytes": 12 * 2**20})


async def test_code_may_be_larger_than_other_bodies(site: Site) -> None:
    """2 MiB for `exec/code`; the route is unknown here, so what passes the limit is a 404."""
    for size, status in ((2 * 2**20, 404), (2 * 2**20 + 1, 413)):
        answer = await site.call("POST", "/sandboxes/x/exec/code", headers={"content-length": str(size)})
        assert answer.status == status


@pytest.mark.parametrize("length", ["x", "-1", "1 2", "", "9" * 5000])
async def test_length_that_is_no_number_is_not_believed(site: Site, length: str) -> None:
    """The body is counted instead."""
    assert (await site.call("POST", "/echo", b"abc", headers={"content-length": length})).status == 200


async def test_caller_who_waits_for_100_is_not_waited_for(site: Site) -> None:
    """It gets its error at once, and the connection closes: after an error it sends no body."""
    answer = await site.call("GET", "/nowhere", headers={"content-length": "5", "expect": "100-continue"}, end=False)
    assert (answer.status, answer.headers["connection"], site.reads) == (404, "close", 0)


async def test_caller_who_was_told_to_continue(site: Site) -> None:
    """When the body was asked for and read, everything is as always."""
    answer = await site.call("POST", "/echo", b"12345", headers={"content-length": "5", "expect": "100-continue"})
    assert (answer.status, "connection" in answer.headers) == (200, False)


# --------------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    "mode, headers, status",
    [
        ("dev", {"origin": "http://evil.example", "host": "127.0.0.1:8081"}, 403),
        ("dev", {"origin": "null", "host": "127.0.0.1:8081"}, 403),
        ("dev", {"origin": "http://127.0.0.1:8081", "host": "127.0.0.1:8081"}, 200),
        ("dev", {"host": "127.0.0.1:8081"}, 200),
        ("prod", {"origin": "http://evil.example", "host": "127.0.0.1:8081"}, 200),
    ],
)
async def test_web_pages_of_other_origins_are_kept_out_of_dev_mode(mode: str, headers: Headers, status: int) -> None:
    """A page that a developer happens to look at must not run commands on that developer's machine."""
    assert (await Site(mode).call(headers=headers)).status == status


@pytest.mark.parametrize(
    "host, status",
    [
        ("evil.example:8081", 403),
        ("evil.example.:8081", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example\\localhost", 403),
        ("127.0.0.1:8081", 200),
        ("[::1]:8081", 200),
        ("localhost", 200),
        ("x.LOCALHOST.:8081", 200),
        ("worker:8081", 200),
        ("", 200),
        ("Here.Example:8081", 200),
        ("here.example.", 200),
    ],
)
async def test_web_pages_whose_name_leads_here_are_kept_out_of_dev_mode(host: str, status: int) -> None:
    """Whoever has a domain can have its name lead to this machine: a page there is of the same origin then."""
    site = Site("dev")
    headers = {"host": host, "origin": f"http://{host}"}
    assert (await site.call(headers=headers)).status == status
    assert (await site.call(headers={"host": host})).status == status
    assert (await Site("prod").call(headers=headers)).status == 200


@pytest.mark.parametrize("mode", ["dev", "prod"])
async def test_a_request_is_for_one_host(mode: str) -> None:
    """With two, what stands before us might have decided by the other one."""
    twice = [(b"host", b"localhost"), (b"host", b"localhost")]
    assert (await Site(mode).call(more=twice[:1])).status == 200
    assert (await Site(mode).call(more=twice)).status == 400


async def test_other_protocols_pass(site: Site) -> None:
    """Only HTTP and WebSockets are handled here."""
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    outer = requests.Supervisor(inner, measured=site.metrics, body_limits=limits.Limits(), local_only=True)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await outer({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
