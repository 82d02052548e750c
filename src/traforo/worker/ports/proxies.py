"""The ports of all sandboxes of a worker as HTTP reaches them: what its exchanges share.

Settings, credentials, connections by sandbox, metrics, and the one line of each request in the log. It reads sandboxes
and never changes one.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.responses import Response

from traforo.api import problems, protocols
from traforo.domain import errors, states
from traforo.settings import worker as settings_worker
from traforo.telemetry import logs, metrics
from traforo.worker import tasks
from traforo.worker.ports import exchanges, gates, heads, pools, publications, targets, upstreams
from traforo.worker.sandboxes import activities, entries, rosters

MAX_LOGGED_PATH = 512
"""Characters of a path in the log."""


class Proxy:
    """Takes the requests that are for ports of sandboxes. Belongs to one event loop."""

    def __init__(
        self,
        *,
        settings: settings_worker.WorkerSettings,
        gate: gates.Gate,
        published: publications.Publications,
        roster: rosters.Roster,
        measured: metrics.WorkerMetrics,
        base_url: Callable[[], str],
    ) -> None:
        """`base_url` is how callers reach this worker, as far as that is known by now."""
        self.router = targets.Router(settings.ports_domain)
        self.response_seconds = settings.ports_response_seconds
        self.isolated = settings.ports_isolate_pages
        self.published = published
        """Which ports are public."""
        self._gate = gate
        self._roster = roster
        self._metrics = measured
        self._base_url = base_url
        self._buffer = memoryview(bytearray(upstreams.READ_BYTES))
        self._pools: dict[str, pools.Pool] = {}
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = pools.Room(max(pools.MAX_IDLE, descriptors // 8), measured.worker_port_connections.inc)
        self._tasks = tasks.Tasks()
        self._notes: list[tuple[targets.Target | None, bytes, int, str, str, float]] = []
        self._log = logs.get(__name__).bind()
        self._results = {
            name: measured.worker_port_requests_total.labels(result=name)
            for name in ("answered", "refused", "failed", "abandoned")
        }

    @property
    def scheme(self) -> str:
        """How callers reach this worker, `http` or `https`."""
        return "https" if self._base_url().startswith("https:") else "http"

    def concerns(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request is for a port."""
        return self.router.concerns(target, headers)

    def take(self, connection: protocols.Protocol) -> exchanges.Exchange:
        """Return what answers the request whose head was just read."""
        return exchanges.Exchange(self, connection, *exchanges.read(self.router, connection))

    def again(self, connection: protocols.Protocol, target: bytes, known: heads.Request) -> exchanges.Exchange | None:
        """Return what answers a request that is like an earlier one but for its target, if it is for a port as well."""
        try:
            return exchanges.Exchange(self, connection, known, self.router.find(target, known.host))
        except errors.TraforoError:
            return None

    def admit(self, request: heads.Request, target: targets.Target) -> tuple[pools.Pool, gates.Pass]:
        """Let a request pass to a running sandbox.

        Raises `Unauthenticated`, `Forbidden`, `NotFound`, `Conflict`.
        """
        passed = self._gate.check(request, target, public=self.published.public(target.sandbox_id, target.port))
        entry = self._roster.get(target.sandbox_id)
        if entry is None:
            raise errors.NotFound(f"no sandbox {target.sandbox_id}", kind="sandbox", id=target.sandbox_id)
        if passed.principal is not None:
            passed.principal.check(entry.text_id, entry.owner)
        if entry.state is not states.SandboxState.RUNNING or entry.running is None:
            raise errors.Conflict(
                f"cannot use the sandbox: it is {entry.state.value}",
                state=entry.state.value,
                reason=entry.reason.value if entry.reason else None,
            )
        return self._pools.get(entry.text_id) or self._pool(entry), passed

    def problem(self, error: errors.TraforoError, request_id: str) -> Response:
        """Return the answer that tells of an error, which is counted where it is about credentials."""
        if isinstance(error, errors.Unauthenticated):
            self._metrics.auth_failed(str(error.fields.get("reason", "malformed")))
        elif isinstance(error, errors.Forbidden):
            self._metrics.auth_failed("forbidden")
        return problems.answer(error, request_id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work beside the connection."""
        return self._tasks.spawn(work)

    def tunnelled(self, pool: pools.Pool, hold: activities.Hold | None) -> Callable[[int, int], None]:
        """Count a tunnel; what is returned is called with the bytes in and out when it ends."""
        self._metrics.worker_port_tunnels.inc()
        sandbox_id = pool.entry.text_id

        def ended(bytes_in: int, bytes_out: int) -> None:
            self._metrics.worker_port_tunnels.dec()
            if hold is not None:
                hold.release()
            self._log.info("port_tunnel_ended", sandbox_id=sandbox_id, bytes_in=bytes_in, bytes_out=bytes_out)

        return ended

    def note(
        self, target: targets.Target | None, *, method: bytes, status: int, result: str, request_id: str, seconds: float
    ) -> None:
        """Count and log one request, once its answer has left. Its query is nobody's business."""
        if not self._notes:
            asyncio.get_running_loop().call_soon(self._write_notes)
        self._notes.append((target, method, status, result, request_id, seconds))

    def _write_notes(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self._write_note(*note)

    def _write_note(
        self, target: targets.Target | None, method: bytes, status: int, result: str, request_id: str, seconds: float
    ) -> None:
        self._metrics.request_done(status, seconds)
        self._results[result].inc()
        self._log.info(
            "port_request",
            request_id=request_id,
            sandbox_id=target.sandbox_id if target else None,
            port=target.port if target else None,
            method=method.decode("latin-1"),
            path=target.path.partition(b"?")[0][:MAX_LOGGED_PATH].decode("latin-1") if target else None,
            status=status,
            result=result,
            ms=round(seconds * 1000, 3),
        )

    async def close(self) -> None:
        """Give up every connection into a sandbox."""
        for pool in tuple(self._pools.values()):
            pool.close()
        await self._tasks.drain()
        self._write_notes()

    def _pool(self, entry: entries.Entry) -> pools.Pool:
        pool = pools.Pool(entry, self._buffer, self._room)
        self._pools[entry.text_id] = pool

        def over(_: object) -> None:
            if self._pools.get(entry.text_id) is pool:
                del self._pools[entry.text_id]
            pool.close()

        if entry.running is not None:
            entry.running.ended.add_done_callback(over)
        return pool
