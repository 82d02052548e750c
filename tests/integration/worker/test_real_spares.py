"""Real sandboxes that were made ahead of demand: as good as new for whoever gets one, and gone when nobody does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.faults import planes

SMALL = {"image": "host", "cpu": 0.5, "memory_mib": 128, "prepare": ["python"]}
IDENTITY = "import os, random, socket, uuid\nprint(os.getpid(), random.random(), socket.gethostname(), uuid.uuid4(), hash('x'))"


@pytest.fixture(scope="module")
def fleet() -> Iterator[planes.Fleet]:
    if os.geteuid() != 0:
        pytest.skip("a spawner of our own can only be found again by root")
    made = planes.fleet()
    made.ensure()
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def http(fleet: planes.Fleet) -> Iterator[httpx2.Client]:
    fleet.ensure()
    with httpx2.Client(base_url=fleet.worker.url, timeout=60) as found:
        yield found


def create(http: httpx2.Client, **wanted: Any) -> dict[str, Any]:
    answer = http.post("/sandboxes", json={**SMALL, **wanted})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def call(http: httpx2.Client, sandbox: dict[str, Any], method: str, path: str, **body: Any) -> Any:
    answer = http.request(method, f"/sandboxes/{sandbox['sandbox_id']}{path}", json=body or None)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def gauge(http: httpx2.Client, name: str) -> float:
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[:1] != "#")
    return float(lines[name])


def wait_for_spares(http: httpx2.Client, count: int) -> None:
    planes.until(lambda: gauge(http, "worker_sandboxes_warm_ready") >= count, f"{count} spares")


def test_one_that_waited_is_as_good_as_new(http: httpx2.Client) -> None:
    """Environment, metadata, limits and lease are those of the create; no two are alike in anything random."""
    made = [create(http)]
    assert made[0]["start_type"] == "cold"
    for number in range(3):
        wait_for_spares(http, 1)
        made.append(create(http, env={"MINE": str(number)}, metadata={"n": str(number)}, ttl_seconds=300))
    assert [sandbox["start_type"] for sandbox in made[1:]] == ["warm"] * 3
    seen = []
    for number, sandbox in enumerate(made[1:]):
        told = call(http, sandbox, "GET", "")
        assert (told["metadata"], told["state"], told["memory_mib"]) == ({"n": str(number)}, "running", 128)
        context = call(http, sandbox, "POST", "/contexts", runtime="python")["context_id"]
        ran = call(http, sandbox, "POST", f"/contexts/{context}/run", code=IDENTITY + "\nos.environ['MINE']")
        assert ran["results"][0]["text/plain"] == repr(str(number))
        seen.append(ran["stdout"].split()[1:])
        code = call(http, sandbox, "POST", "/exec/code", code=IDENTITY + "\nprint(os.environ['MINE'])", wait=True)
        assert code["stdout"].splitlines()[1] == str(number)
        seen.append(code["stdout"].splitlines()[0].split()[1:])
        command = call(http, sandbox, "POST", "/exec", command="echo $MINE; id -un; ps -e | wc -l", wait=True)
        assert command["stdout"].split()[:2] == [str(number), "user"]
        events = call(http, sandbox, "GET", "/events")["events"]
        assert [event["type"] for event in events][:2] == ["created", "ready"]
    for column, kinds in zip(zip(*seen, strict=True), (6, 3, 6, 6), strict=True):
        assert len(set(column)) == kinds  # a name for each sandbox, all else for each interpreter
    listed = {sandbox["sandbox_id"] for sandbox in http.get("/sandboxes").json()["sandboxes"]}
    assert {sandbox["sandbox_id"] for sandbox in made} <= listed
    assert gauge(http, "worker_warm_hit_total") >= 3
    for sandbox in made:
        call(http, sandbox, "DELETE", "")


def test_a_worker_that_is_killed_leaves_no_spares(fleet: planes.Fleet, http: httpx2.Client) -> None:
    """The claimed one and its script go on; those that nobody has are ended by the next worker."""
    create(http)
    wait_for_spares(http, 1)
    sandbox = create(http, ttl_seconds=600)
    assert sandbox["start_type"] == "warm"
    wait_for_spares(http, 1)
    begun = call(
        http,
        sandbox,
        "POST",
        "/exec/code",
        code="import os, time\nprint('on', flush=True)\nwhile not os.path.exists('/tmp/gate'): time.sleep(.01)\nprint('off')",
        wait=False,
        timeout_ms=60_000,
    )["exec_id"]
    planes.until(lambda: call(http, sandbox, "GET", f"/exec/{begun}")["stdout"] == "on\n", "the script")
    before = len(fleet.sandbox_groups())
    fleet.worker.kill()
    fleet.ensure()
    planes.until(lambda: len(fleet.sandbox_groups()) < before, "the end of the spares")
    call(http, sandbox, "POST", "/exec", command="touch /tmp/gate", wait=True)

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = call(http, sandbox, "GET", f"/exec/{begun}")
        return found if found["status"] == "exited" else None

    answer = planes.until(ended, "the end of the script")
    assert (answer["stdout"], answer["exit_code"]) == ("on\noff\n", 0)
