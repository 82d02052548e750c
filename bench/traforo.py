"""traforo as a contender: over HTTP on loopback, a new sandbox for every create, proven by its id.

Times are taken at the client from the first byte of the request to the last of the answer. The server's own phases come
with them as details, so that a reader sees what of a create was spent where.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench import answers
from bench.clients import Client
from bench.contenders import Description, MeasurementError
from bench.servers import Server

EXEC_TRUE = {"command": ["true"], "wait": True}
EXEC_PYTHON = {"code": "print(6 * 7)", "runtime": "python", "wait": True}


class Traforo:
    """One image through one door of one server."""

    def __init__(
        self, server: Server, *, name: str, image: str, version: str = "", through_control: bool = False
    ) -> None:
        door = "control plane, redirected to the worker" if through_control else "worker"
        kind = image.partition(":")[0]
        self.description = Description(name=name, version=version, note=f"HTTP on loopback to the {door}; image {kind}")
        self.steps: tuple[str, ...] = ("create", "tti")
        if not through_control:
            self.steps += ("exec",)
        if image == "host":
            self.steps += ("python",)
        self._server = server
        self._door = server.control_url if through_control else server.worker_url
        self._request = {"image": image}
        self._client = Client()
        self._seen: set[str] = set()
        self._living: str | None = None

    def measure(self, step: str) -> Mapping[str, float]:
        """Do `step` over connections that are open beforehand."""
        self._client.connect(self._door, self._server.worker_url)
        steps = {"create": self._create, "tti": self._first_command, "exec": self._exec, "python": self._first_output}
        return steps[step]()

    def close(self) -> None:
        """Delete the living sandbox."""
        try:
            if self._living is not None:
                self._client.request("DELETE", self._living)
        finally:
            self._client.close()

    def _create(self) -> Mapping[str, float]:
        start = time.perf_counter()
        sandbox = self._new()
        ready = time.perf_counter()
        self._delete(self._url(sandbox))
        deleted = time.perf_counter()
        phases = {f"create: {phase}": float(ms) for phase, ms in sandbox.get("timings_ms", {}).items()}
        return {"create": (ready - start) * 1000, "delete": (deleted - ready) * 1000, **phases}

    def _first_command(self) -> Mapping[str, float]:
        start = time.perf_counter()
        url = self._url(self._new())
        created = time.perf_counter()
        try:
            self._run_true(url)
            done = time.perf_counter()
        finally:
            self._delete(url)
        deleted = time.perf_counter()
        tti = (done - start) * 1000
        return {"tti": tti, "run": (deleted - start) * 1000, "tti: create": (created - start) * 1000}

    def _exec(self) -> Mapping[str, float]:
        if self._living is None:
            self._living = self._url(self._new())
        start = time.perf_counter()
        self._run_true(self._living)
        return {"exec": (time.perf_counter() - start) * 1000}

    def _first_output(self) -> Mapping[str, float]:
        start = time.perf_counter()
        url = self._url(self._new())
        try:
            answers.printed(self._client.request("POST", f"{url}/exec/code", EXEC_PYTHON), "42\n")
            done = time.perf_counter()
        finally:
            self._delete(url)
        return {"python": (done - start) * 1000}

    def _new(self) -> dict[str, Any]:
        sandbox = answers.created(self._client.request("POST", f"{self._door}/sandboxes", self._request))
        if sandbox["sandbox_id"] in self._seen:
            raise MeasurementError("create: the sandbox is not a new one")
        self._seen.add(sandbox["sandbox_id"])
        return sandbox

    def _url(self, sandbox: Mapping[str, Any]) -> str:
        return f"{self._server.worker_url}/sandboxes/{sandbox['sandbox_id']}"

    def _run_true(self, url: str) -> None:
        answers.ran_true(self._client.request("POST", f"{url}/exec", EXEC_TRUE))

    def _delete(self, url: str) -> None:
        answers.deleted(self._client.request("DELETE", url))
