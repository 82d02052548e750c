"""A whole control plane without sockets: its application over a fake clock, a memory store and scripted workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib import parse

import httpx2
import prometheus_client
from joserfc import jwk, jwt
from pydantic import SecretStr

from tests.fakes import clocks
from traforo.api import applications, replays, tokens
from traforo.control import app, contexts, inquiries, registrars
from traforo.domain import ids
from traforo.settings import control, groups
from traforo.store import contract, memory
from traforo.telemetry import metrics

SECRET = "a secret of thirty-two bytes at least"
HOSTNAME = "one.example"
SANDBOX = f"sbx_{ids.worker_hash(HOSTNAME)}_01K6Z8Q4T3V7WXYZ0123456789"
LEASE = 120.0
REGISTRATION: dict[str, Any] = {
    "hostname": HOSTNAME,
    "base_url": "http://one.example:8081",
    "virtualizations": ["container"],
    "total_cores": 2,
    "total_memory_mib": 4096,
    "max_live_sandboxes": 10,
    "live_sandboxes": 3,
    "images": ["host"],
}

WorkerAnswer = Callable[[httpx2.Request], httpx2.Response]


def silent(_: httpx2.Request) -> httpx2.Response:
    """A worker that cannot be reached."""
    raise httpx2.ConnectError("connection refused")


def settings(mode: groups.Mode, state_dir: Path = Path("/nowhere")) -> control.ControlSettings:
    secret = SecretStr(SECRET if mode == "prod" else "")
    return control.ControlSettings(state_dir=state_dir, auth=groups.AuthSettings(jwt_secret=secret))


@dataclass(slots=True)
class Reply:
    """What the application sent."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    @property
    def location(self) -> str | None:
        return next((value.decode() for name, value in self.headers if name == b"location"), None)


@dataclass(slots=True)
class Plane:
    """A control plane and everything around it."""

    application: applications.Application
    context: contexts.Context
    clock: clocks.FakeClock
    store: contract.Store
    http: httpx2.AsyncClient
    asked: list[httpx2.Request] = field(default_factory=list)
    """What workers were asked."""
    answers: dict[str, WorkerAnswer] = field(default_factory=dict)
    """How workers answer, by host; those that are not here cannot be reached."""

    async def register(self, worker_id: str = "w1", **changes: Any) -> httpx2.Response:
        headers = self.internal(worker_id) if self.context.authority.mode == "prod" else {}
        url = f"/internal/workers/{worker_id}/registration"
        return await self.http.put(url, json=REGISTRATION | changes, headers=headers)

    def internal(self, worker_id: str = "w1") -> dict[str, str]:
        """Credential of a worker, good for one request."""
        return {"authorization": f"Bearer {self.context.authority.sign_internal(worker_id)}"}

    def client(self, **changes: Any) -> dict[str, str]:
        """Credential of a client; a claim that is changed to None is left out."""
        return {"authorization": f"Bearer {self.token(**changes)}"}

    def token(self, *, secret: str = SECRET, **changes: Any) -> str:
        now = self.clock.now()
        claims = {
            "client_id": "alice",
            "iss": "traforo",
            "aud": "traforo-api",
            "iat": now,
            "exp": now + 300,
            "jti": "jti-1",
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "HS256"}, claims, jwk.OctKey.import_key(secret.encode()))

    async def ask(
        self, method: str, raw_path: bytes, query: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request whose target no client would let through, as the server hands it to the application."""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parse.unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
        }
        reply = Reply()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status, reply.headers = message["status"], list(message["headers"])
            else:
                reply.body += message.get("body", b"")

        await self.application(scope, receive, send)
        return reply

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of a metric, 0.0 where it has none yet."""
        return self.context.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def plane(mode: groups.Mode = "dev", store: contract.Store | None = None) -> AsyncIterator[Plane]:
    """Make a control plane over a store, by default an empty one in memory."""
    clock = clocks.FakeClock()
    store = store or memory.MemoryStore()
    configured = settings(mode)
    registrar = registrars.Registrar(store, clock, lease_ttl=LEASE, round_interval=10.0)
    guard = replays.ReplayGuard(on_use=registrar.token_used)
    guard.restore(((token.jti, token.expires_at) for token in await registrar.load()), clock.now())
    authority = tokens.Authority(configured.auth, clock)

    def answer(request: httpx2.Request) -> httpx2.Response:
        made.asked.append(request)
        return made.answers.get(request.url.host, silent)(request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as outward:
        context = contexts.Context(
            settings=configured,
            clock=clock,
            authority=authority,
            guard=guard,
            registrar=registrar,
            inquiries=inquiries.Inquiries(outward, authority, clock),
            metrics=metrics.ControlMetrics(prometheus_client.CollectorRegistry()),
        )
        application = app.build(context)
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://control") as http:
            made = Plane(application, context, clock, store, http)
            yield made
