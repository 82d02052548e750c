"""Code contexts in real sandboxes: whole trees, limits, users, and a worker that is killed."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.faults import planes

RUNTIMES = [
    "python",
    pytest.param("node", marks=pytest.mark.skipif(not shutil.which("node"), reason="no node")),
    "bash",
]


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


class Sandbox:
    """One sandbox over HTTP."""

    def __init__(self, fleet: planes.Fleet, **wanted: Any) -> None:
        self.fleet = fleet
        self.http = httpx2.Client(base_url=fleet.worker.url, timeout=60)
        headers = fleet.headers() if hasattr(fleet, "headers") else {}
        answer = self.http.post("/sandboxes", json={"image": "host", **wanted}, headers=headers)
        assert answer.status_code == 201, answer.text
        self.base = f"/sandboxes/{answer.json()['sandbox_id']}"
        token = answer.json()["token"]
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, status: int = 200, **body: Any) -> Any:
        answer = self.http.request(method, self.base + path, json=body or None, headers=self.headers)
        assert status == answer.status_code, answer.text
        return answer.json() if answer.content else None

    def context(self, runtime: str = "python", **wanted: Any) -> str:
        found: str = self.call("POST", "/contexts", 201, runtime=runtime, **wanted)["context_id"]
        return found

    def run(self, context: str, code: str, **wanted: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.call("POST", f"/contexts/{context}/run", code=code, **wanted)
        return found

    def begin(self, context: str, code: str, **wanted: Any) -> str:
        found: str = self.call("POST", f"/contexts/{context}/run", 202, code=code, wait=False, **wanted)["exec_id"]
        return found

    def until(self, exec_id: str, text: str) -> None:
        """Return when a run has printed something."""
        planes.until(lambda: text in self.call("GET", f"/exec/{exec_id}")["stdout"], f"{text!r} of {exec_id}")

    def ended(self, exec_id: str) -> dict[str, Any]:
        """Return a run when it has ended."""

        def found() -> dict[str, Any] | None:
            answer: dict[str, Any] = self.call("GET", f"/exec/{exec_id}")
            return answer if answer["status"] == "exited" else None

        return planes.until(found, f"the end of {exec_id}", 40.0)


@pytest.fixture
def sandbox(fleet: planes.Fleet) -> Iterator[Sandbox]:
    fleet.ensure()
    made = Sandbox(fleet, memory_mib=512, pids=200)
    try:
        yield made
    finally:
        fleet.ensure()
        made.call("DELETE", "", 204)
        made.http.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_state_and_output(sandbox: Sandbox, runtime: str) -> None:
    """State stays from run to run, as the sandbox's own user, in its own namespaces."""
    context = sandbox.context(runtime, cwd="/tmp", env={"OWN": "yes"})
    codes = {
        "python": (
            "import os; x = 41",
            "print(x + 1, os.getcwd(), os.environ['OWN'], os.getuid()); os.system('id -u')",
        ),
        "node": ("let x = 41", "console.log(x + 1, process.cwd(), process.env.OWN, process.getuid())"),
        "bash": ("x=41", "echo $((x + 1)) $PWD $OWN $UID"),
    }[runtime]
    sandbox.run(context, codes[0])
    answer = sandbox.run(context, codes[1])
    assert answer["stdout"].splitlines()[0] == "42 /tmp yes 1000"
    assert answer["execution_count"] == 2
    assert [context] == [found["context_id"] for found in sandbox.call("GET", "/contexts")["contexts"]]


def test_nothing_is_left_in_the_file_system(sandbox: Sandbox) -> None:
    """A context leaves no file in the sandbox and takes no environment of ours into it."""
    context = sandbox.context()
    code = "import os, sys; (os.listdir('/tmp'), [name for name in os.environ if 'TRAFORO' in name.upper()], sys.argv)"
    assert sandbox.run(context, code)["results"][0]["text/plain"] == "([], [], [''])"


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time; time.sleep(1000)", "import os; os.system('sleep 1000')"]
)
def test_interrupts(sandbox: Sandbox, code: str) -> None:
    """An interrupt ends loops, sleeps and processes, and the context goes on."""
    context = sandbox.context()
    run = sandbox.begin(context, "kept = 5; print('go')\n" + code)
    sandbox.until(run, "go")
    sandbox.call("POST", f"/contexts/{context}/interrupt", 204)
    assert sandbox.ended(run)["end"] == "exited"
    assert sandbox.run(context, "kept")["results"][0]["text/plain"] == "5"


def test_c_code_that_can_be_interrupted(sandbox: Sandbox) -> None:
    """A regular expression without end looks at signals, so its deadline leaves the context alive."""
    context = sandbox.context()
    answer = sandbox.run(context, "import re; re.match('(a+)+$', 'a' * 40 + 'b')", timeout_ms=300)
    assert (answer["end"], answer["error"]["name"]) == ("timed_out", "KeyboardInterrupt")
    assert sandbox.run(context, "1")["exit_code"] == 0


def test_c_code_that_cannot_be_interrupted(sandbox: Sandbox) -> None:
    """A regular expression that never ends is killed with its context at its deadline."""
    context = sandbox.context()
    code = "import re, signal\nsignal.signal(2, signal.SIG_IGN)\nre.match('(a+)+$', 'a' * 40 + 'b')"
    answer = sandbox.run(context, code, timeout_ms=300)
    assert (answer["end"], answer["exit_code"]) == ("timed_out", 124)
    assert sandbox.call("GET", f"/contexts/{context}")["status"] == "dead"
    error = sandbox.call("POST", f"/contexts/{context}/run", 409, code="1")["error"]
    assert "restart" in error["hint"]
    assert sandbox.call("POST", f"/contexts/{context}/restart")["status"] == "idle"
    assert sandbox.run(context, "1")["exit_code"] == 0


def test_a_kill_leaves_nothing_of_its_context_and_all_of_the_others(sandbox: Sandbox) -> None:
    """Processes that left their session and their parents die with their context; those of another live on."""
    doomed, other = sandbox.context(), sandbox.context()
    spawn = "import subprocess as s\nfor _ in range(3): s.Popen('setsid sh -c \"sleep {} & sleep {}\" &', shell=True)"
    sandbox.run(other, spawn.format(777, 777))
    sandbox.run(doomed, spawn.format(888, 888))
    sandbox.run(doomed, "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass", timeout_ms=200)
    assert sandbox.call("POST", "/exec", command=["pgrep", "-x", "-c", "sleep"], wait=True)["stdout"] == "6\n"


def test_threads_without_end(sandbox: Sandbox) -> None:
    """Code that starts threads until there are no more meets an error of its own; another context is served."""
    context, other = sandbox.context(), sandbox.context()
    code = "import threading, time\nfor _ in range(10_000): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    answer = sandbox.run(context, code)
    assert answer["error"]["name"] == "RuntimeError"
    assert sandbox.run(other, "2")["exit_code"] == 0
    sandbox.call("DELETE", f"/contexts/{context}", 204)
    assert sandbox.run(other, "import os; os.system('true')")["results"][0]["text/plain"] == "0"


def test_memory_without_end(sandbox: Sandbox) -> None:
    """Code that takes all memory ends its context, and its run says why."""
    context, other = sandbox.context(), sandbox.context()
    answer = sandbox.run(context, "x = [bytearray(1 << 20) for _ in range(4096)]")
    assert answer["end"] in {"out_of_memory", "signalled"}
    assert answer["exit_code"] == 137
    assert sandbox.run(other, "2")["exit_code"] == 0


@pytest.mark.parametrize(
    "code, code_wanted", [("os._exit(3)", 3), ("os.kill(os.getpid(), 11)", 139), ("os.kill(os.getpid(), 9)", 137)]
)
def test_the_end_of_an_interpreter(sandbox: Sandbox, code: str, code_wanted: int) -> None:
    """The run has the exact end of its interpreter; the context is dead and can be restarted."""
    context = sandbox.context()
    answer = sandbox.run(context, "import os; print('last', flush=True); " + code)
    assert (answer["stdout"], answer["exit_code"]) == ("last\n", code_wanted)
    assert sandbox.call("GET", f"/contexts/{context}")["status"] == "dead"


def test_huge_output_and_results(sandbox: Sandbox) -> None:
    """Megabytes come whole, through frames too."""
    context = sandbox.context()
    run = sandbox.begin(context, "import os\nfor i in range(320): os.write(1, b'%099999d\\n' % i)\nprint('end')")
    assert sandbox.ended(run)["stdout_truncated"]
    total, cursor, last = 0, 0, b""
    while True:
        page = sandbox.http.get(
            f"{sandbox.base}/exec/{run}/frames?encoding=base64&cursor={cursor}", headers=sandbox.headers
        ).json()
        for frame in page["frames"]:
            if frame["type"] == "stdout":
                last = base64.b64decode(frame["data"])
                total += len(last)
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert (total, last[-4:]) == (32_000_000 + 4, b"end\n")
    answer = sandbox.run(context, "display({'image/png': b'x' * 5_000_000}, raw=True)")
    assert base64.b64decode(answer["results"][0]["image/png"]) == b"x" * 5_000_000


def test_text_of_every_kind(sandbox: Sandbox) -> None:
    """Unicode, lone surrogates and stray bytes come through as text, and exactly as frames."""
    context = sandbox.context()
    answer = sandbox.run(context, "import os\nprint('é😀\\ud800'); os.write(1, b'\\xff\\n'); '😀\\udcff'")
    assert answer["stdout"] == "é😀\\ud800\n\ufffd\n"
    assert answer["results"][0]["text/plain"] == "'😀\\udcff'"


def test_contexts_differ(sandbox: Sandbox) -> None:
    """Random numbers, identities and secrets of prepared and of fresh interpreters are their own."""
    code = "import random, uuid, secrets, os\n(random.random(), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(8), os.getpid(), hash('x'))"
    texts = [sandbox.run(sandbox.context(), code)["results"][0]["text/plain"] for _ in range(4)]
    parts = [text.strip("()").split(", ") for text in texts]
    assert all(len(set(column)) == 4 for column in zip(*parts, strict=True))


def test_prepared(fleet: planes.Fleet) -> None:
    """A sandbox that was asked to prepare an interpreter hands it out, each to one context."""
    fleet.ensure()
    sandbox = Sandbox(fleet, prepare=["python"])
    assert sandbox.call("GET", "/contexts")["contexts"] == []
    code = "import os, random; (os.getpid(), random.random())"
    texts = {sandbox.run(sandbox.context(), code)["results"][0]["text/plain"] for _ in range(3)}
    assert len(texts) == 3
    assert len(sandbox.call("GET", "/contexts")["contexts"]) == 3
    sandbox.call("DELETE", "", 204)
    sandbox.http.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_worker_that_is_killed(sandbox: Sandbox, runtime: str) -> None:
    """A run goes on while the worker is dead; the next worker has all its output and its end, and the state."""
    context = sandbox.context(runtime)
    code = {
        "python": "import os, time\nkept = 'kept'; print('go'); display(1)\nwhile not os.path.exists('/tmp/gate'): time.sleep(.01)\n"
        "for i in range(50_000): print(i)\ndisplay(2)",
        "node": "var kept = 'kept'; console.log('go'); const fs = require('fs'); while (!fs.existsSync('/tmp/gate')) {}\n"
        "for (let i = 0; i < 50000; i++) console.log(i)",
        "bash": "kept=kept; echo go; while [ ! -e /tmp/gate ]; do sleep 0.01; done; for ((i = 0; i < 50000; i++)); do echo $i; done",
    }[runtime]
    run = sandbox.begin(context, code, timeout_ms=60_000)
    sandbox.until(run, "go")
    worker = sandbox.fleet.worker
    sandbox.call("POST", "/exec", 202, command="sleep 1; touch /tmp/gate")
    worker.kill()
    time.sleep(1.5)  # output waits in the pipe, and the code with it
    sandbox.fleet.ensure()
    answer = sandbox.ended(run)
    assert answer["stdout"] == "go\n" + "".join(f"{i}\n" for i in range(50_000))
    assert (answer["end"], answer["exit_code"]) == ("exited", 0)
    say = {"python": "print(kept)", "node": "console.log(kept)", "bash": "echo $kept"}[runtime]
    assert sandbox.run(context, say)["stdout"] == "kept\n"
