"""`python -m bench.contexts`: how soon Python in a new sandbox gives its first output, and what a run costs after that.

Timed from the call of create to the output in hand: a context and `exec/code`, each in a sandbox that was asked to
`prepare` its interpreter, which is usually one that was made ahead, and in one that was not. Beside them stand the
floor (a bare interpreter on the host) and its processor time, because a machine that does other things makes every wall
time longer: what holds is the ratio to the floor.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import servers
from bench.clients import Client
from bench.contenders import UnavailableError

ROUNDS = 40
PAUSE_SECONDS = 0.1
"""Between two sandboxes, as between two calls of people and agents: what is made ahead is made then."""
PREPARED: dict[str, object] = {"prepare": ["python"]}
RUNS = 200
CODE = "print(6 * 7)"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> int:
    """Measure, and print one line a figure: name, p50, p95, and its p50 over the floor's."""
    times: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="traforo-bench-") as place,
        servers.started(servers.executable(), Path(place) / "state", most_live=16) as server,
    ):
        client = Client()
        client.connect(server.worker_url)
        ways: dict[str, Callable[[], float]] = {
            "floor: python3 -c": _floor,
            "context": lambda: _first(client, server.worker_url, {}),
            "context, prepared": lambda: _first(client, server.worker_url, PREPARED),
            "exec/code": lambda: _code(client, server.worker_url, {}),
            "exec/code, prepared": lambda: _code(client, server.worker_url, PREPARED),
        }
        for number in range(ROUNDS + 3):
            for name, way in ways.items():  # in turn, so that all meet the same noise
                taken = way()
                if number >= 3:
                    times.setdefault(name, []).append(taken)
                time.sleep(PAUSE_SECONDS)
        times["run in a context"] = _runs(client, server.worker_url)
    floor = statistics.median(times["floor: python3 -c"])
    for name, found in times.items():
        ordered = sorted(found)
        middle, late = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
        print(f"{name:28} p50 {middle * 1e3:7.2f} ms  p95 {late * 1e3:7.2f} ms  {middle / floor:5.2f} x floor")
    print(f"{'floor: processor time':28} p50 {_processor_time() * 1e3:7.2f} ms")
    return 0


def _first(client: Client, worker: str, wanted: dict[str, object]) -> float:
    begun = time.perf_counter()
    sandbox = _made(client, f"{worker}/sandboxes", {"image": "host", **wanted})["sandbox_id"]
    base = f"{worker}/sandboxes/{sandbox}"
    context = _made(client, f"{base}/contexts", {})["context_id"]
    told = _made(client, f"{base}/contexts/{context}/run", {"code": CODE})
    taken = time.perf_counter() - begun
    assert told["stdout"] == "42\n", told
    client.request("DELETE", base)
    return taken


def _code(client: Client, worker: str, wanted: dict[str, object]) -> float:
    begun = time.perf_counter()
    sandbox = _made(client, f"{worker}/sandboxes", {"image": "host", **wanted})["sandbox_id"]
    base = f"{worker}/sandboxes/{sandbox}"
    told = _made(client, f"{base}/exec/code", {"code": CODE})
    taken = time.perf_counter() - begun
    assert told["stdout"] == "42\n", told
    client.request("DELETE", base)
    return taken


def _runs(client: Client, worker: str) -> list[float]:
    """Return the times of runs in one context."""
    base = f"{worker}/sandboxes/{_made(client, f'{worker}/sandboxes', {'image': 'host'})['sandbox_id']}"
    context = _made(client, f"{base}/contexts", {})["context_id"]
    found = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        _made(client, f"{base}/contexts/{context}/run", {"code": "1"})
        found.append(time.perf_counter() - begun)
    client.request("DELETE", base)
    return found


def _floor() -> float:
    begun = time.perf_counter()
    program = shutil.which("python3", path=_PATH)  # the one that a sandbox finds
    if program is None:
        raise UnavailableError("this host has no python3")
    subprocess.run([program, "-c", CODE], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _processor_time() -> float:
    """Return the processor time of a bare interpreter, in seconds."""
    found = []
    for _ in range(20):
        before = os.times()
        _floor()
        after = os.times()
        found.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.mean(found)


def _made(client: Client, url: str, body: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = client.request("POST", url, body).json()
    return found


if __name__ == "__main__":
    sys.exit(main())
