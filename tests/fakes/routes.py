"""What else a fake server answers about a "sandbox": its log, events, metrics, ports, signals, terminals, contexts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import commands


def log(sandbox: commands.FakeSandbox, query: dict[str, str]) -> list[dict[str, Any]]:
    wanted = {"events": set(), "stdout": {"stdout"}, "stderr": {"stderr"}}.get(query.get("stream", ""))
    entries = [
        {**frame, "exec_id": execution.exec_id, "data": frame["data"].decode(errors="replace")}
        for execution in sandbox.execs.values()
        for frame in list(execution.frames)
        if wanted is None or frame["type"] in wanted
    ]
    return [{**entry, "cursor": number} for number, entry in enumerate(entries, 1)]


def _logs(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    start_at = int(asked.query.get("cursor", 0))
    found = log(sandbox, asked.query)
    page = found[start_at : start_at + 2]
    end = start_at + len(page)
    return 200, {"entries": page, "next_cursor": end if end < len(found) else None}


def _events(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    start_at = int(asked.query.get("cursor", 0))
    deadline = time.monotonic() + min(5.0, float(asked.query.get("wait", 0)))
    while len(sandbox.events) <= start_at and time.monotonic() < deadline and sandbox.state == "running":
        time.sleep(0.005)
    page = sandbox.events[start_at : start_at + 2]
    return 200, {"events": page, "next_cursor": start_at + len(page)}


def _metrics(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    usage = {
        "ts": commands.now(),
        "cpu_seconds": 1.5,
        "cpu_percent": 12.5,
        "memory_bytes": 64 << 20,
        "memory_limit_bytes": 512 << 20,
        "memory_peak_bytes": 128 << 20,
        "disk_bytes": 1 << 20,
        "disk_limit_bytes": 512 << 20,
        "pids": 3,
        "pids_limit": 512,
        "network_received_bytes": None,
        "network_sent_bytes": None,
    }
    return 200, {"now": usage, "series": [usage, usage] if asked.query.get("series") == "true" else []}


def _ports(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if not parts:
        ports = [{"port": port, "address": "127.0.0.1", "public": True} for port in sorted(sandbox.public)]
        return 200, {"ports": [{"port": 80, "address": "0.0.0.0", "public": False}, *ports]}
    port = int(parts[0])
    if asked.method == "POST":
        (sandbox.public.add if asked.json["public"] else sandbox.public.discard)(port)
    return 200, {
        "sandbox_id": sandbox.sandbox_id,
        "port": port,
        "protocol": asked.query.get("protocol", "http"),
        "url": f"http://worker.example/sandboxes/{sandbox.sandbox_id}/proxy/{port}/",
        "host_url": f"http://{port}-{'a' * 52}.localhost/",
        "token": "traffic",
        "public": port in sandbox.public,
    }


def _signal(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    given = asked.json
    names = {"tag": "tag", "exec_id": "exec_id"}
    wanted = {attribute: given[name] for name, attribute in names.items() if name in given}
    found = [
        item
        for item in sandbox.execs.values()
        if item.code is None and all(getattr(item, name) == value for name, value in wanted.items())
    ]
    found = [item for item in found if given.get("pid", item.process.pid) == item.process.pid]
    number = given["signal"] if isinstance(given["signal"], int) else signal.Signals[f"SIG{given['signal']}"]
    for item in found:
        os.killpg(item.process.pid, number)
    return 200, {"signalled": len(found)}


def _terminals(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if asked.method == "GET":
        found = [commands.result(sandbox, item) for item in sandbox.execs.values() if item.master is not None]
        return 200, {"terminals": found, "next_cursor": None}
    if asked.method == "DELETE":
        if parts[0] not in sandbox.execs:
            raise commands.Refusal(404, "not_found", "no such terminal", kind="exec")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sandbox.execs[parts[0]].process.pid, signal.SIGKILL)
        return 204, None
    given = asked.json
    command = given.get("command", ["/bin/sh"])
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    execution = commands.start(sandbox, argv, {**given, "tty": {k: given[k] for k in ("rows", "columns")}}, command)
    return 201, {**commands.result(sandbox, execution), "ws_url": f"ws://worker/exec/{execution.exec_id}/ws"}


def _contexts(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if not parts:
        if asked.method == "GET":
            return 200, {"contexts": [item.info() for item in sandbox.contexts.values()]}
        made = FakeContext(f"ctx_01HZZZ{len(sandbox.contexts):02d}", sandbox, asked.json)
        sandbox.contexts[made.context_id] = made
        return 201, made.info()
    if parts[0] not in sandbox.contexts:
        raise commands.Refusal(404, "not_found", "no such context", kind="context")
    context = sandbox.contexts[parts[0]]
    if asked.method == "DELETE":
        del sandbox.contexts[parts[0]]
        return 204, None
    if context.dead and parts[1:] in (["run"], ["interrupt"]):
        hint = "restart the context: POST /sandboxes/{sandbox_id}/contexts/{context_id}/restart"
        raise commands.Refusal(409, "conflict", "the interpreter has ended", kind="context", id=parts[0], hint=hint)
    if parts[1:] == ["run"]:
        return context.run(asked.json)
    if parts[1:] == ["restart"]:
        context.dead = False
        context.names.clear()
        context.count = 0
    return 200, context.info()


@dataclass
class FakeContext:
    """An interpreter: this one, with names of its own."""

    context_id: str
    sandbox: commands.FakeSandbox
    asked: dict[str, Any]
    names: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    dead: bool = False

    def info(self) -> dict[str, Any]:
        return {
            "context_id": self.context_id,
            "sandbox_id": self.sandbox.sandbox_id,
            "runtime": self.asked.get("runtime", "python"),
            "status": "idle",
            "cwd": "/root",
            "user": "root",
            "name": self.asked.get("name"),
            "created_at": commands.now(),
            "execution_count": self.count,
        }

    def run(self, given: dict[str, Any]) -> tuple[int, Any]:
        self.count += 1
        execution = commands.start(self.sandbox, ["cat"], {"stdin_open": True, "tag": given.get("tag")}, given["code"])
        execution.context_id = self.context_id
        shown, error, out = [], None, io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                try:
                    value = eval(given["code"], self.names)
                except SyntaxError:
                    exec(given["code"], self.names)
                    value = None
            if value is not None:
                shown.append({"text/plain": repr(value), "is_main": True})
        except Exception as problem:  # noqa: BLE001 - whatever the code raises
            error = {"name": type(problem).__name__, "value": str(problem), "traceback": [f"line 1: {problem}"]}
        for item in shown:
            execution.add("result", json.dumps(item).encode())
        if error:
            execution.add("result", json.dumps({"error": error}).encode())
        if execution.stdin is not None:
            execution.stdin.write(out.getvalue().encode())
        commands.end_input(execution)
        if not given["wait"]:
            return 202, {"exec_id": execution.exec_id, "sandbox_id": self.sandbox.sandbox_id, "status": "running"}
        with execution.changed:
            execution.changed.wait_for(lambda: execution.ended)
        more = {"context_id": self.context_id, "execution_count": self.count}
        return 200, {**commands.result(self.sandbox, execution), "results": shown, "error": error, **more}


EXTRAS: dict[str, Callable[[commands.Asked, commands.FakeSandbox, list[str]], tuple[int, Any]]] = {
    "logs": _logs,
    "events": _events,
    "metrics": _metrics,
    "ports": _ports,
    "signal": _signal,
    "terminals": _terminals,
    "contexts": _contexts,
}
