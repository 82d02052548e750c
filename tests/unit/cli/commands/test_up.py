"""What `up` decides before it starts anything, and what it does with what it started."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.servers import FakeServer
from traforo.cli import children, probes
from traforo.cli.commands import up
from traforo.domain import errors


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["control", "worker"])
def test_plan_refuses_an_address_that_is_taken(name: str, taken: int, tmp_path: Path) -> None:
    """Nothing is started that would find somebody else there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    ports = (taken, free) if name == "control" else (free, taken)
    with pytest.raises(OSError, match=f":{taken}: address already in use"):
        up._plan(ports, tmp_path, (None, None), ({}, {}))


@pytest.fixture
def all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine runs, every address is free."""
    monkeypatch.setattr(probes, "require_free", lambda host, port: None)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRAFORO_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("all_free")
def test_plan_with_a_state_directory(tmp_path: Path) -> None:
    """Everything is kept below it, and the worker is told where to register."""
    plan = up._plan((1, 2), tmp_path, (None, None), ({}, {}))
    assert (plan.control_url, plan.worker_url, plan.hostname) == (
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "localhost",
    )
    assert set(plan.control) == {
        "--listen=127.0.0.1:1",
        f"--state-dir={tmp_path / 'control'}",
        f"--log-file={tmp_path / 'logs' / 'control.log'}",
    }
    assert set(plan.worker) == {
        "--listen=127.0.0.1:2",
        f"--state-dir={tmp_path / 'worker'}",
        f"--run-dir={tmp_path / 'run'}",
        f"--log-file={tmp_path / 'logs' / 'worker.log'}",
        "--control-url=http://127.0.0.1:1",
    }


@pytest.mark.usefixtures("all_free")
def test_plan_without_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has its own defaults; only the logs have to be somewhere."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    plan = up._plan((None, None), None, (None, None), ({}, {}))
    assert (plan.control_url, plan.worker_url) == ("http://127.0.0.1:8080", "http://127.0.0.1:8081")
    assert plan.logs == Path("/home/me/state/traforo/logs")
    assert list(plan.control) == [f"--log-file={plan.logs / 'control.log'}"]
    assert list(plan.worker) == [f"--control-url={plan.control_url}", f"--log-file={plan.logs / 'worker.log'}"]


@pytest.mark.usefixtures("all_free")
def test_plan_leaves_what_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag would win over them, so none is added."""
    monkeypatch.setenv("TRAFORO_CONTROL_LISTEN", "127.0.0.1:5")
    monkeypatch.setenv("TRAFORO_CONTROL_LOG_FILE", "/var/log/c")
    monkeypatch.setenv("TRAFORO_WORKER_LISTEN", "127.0.0.1:6")
    monkeypatch.setenv("TRAFORO_WORKER_STATE_DIR", "/srv/t/worker")
    monkeypatch.setenv("TRAFORO_WORKER_CONTROL_URL", "http://elsewhere")
    plan = up._plan((None, None), None, (None, None), ({}, {}))
    assert (plan.control_url, plan.worker_url) == ("http://127.0.0.1:5", "http://127.0.0.1:6")
    assert (list(plan.control), list(plan.worker)) == ([], ["--log-file=/srv/t/logs/worker.log"])


@pytest.mark.usefixtures("all_free")
def test_plan_with_settings_of_ones_own(tmp_path: Path) -> None:
    """Flags and files of both processes are handed on and count for what `up` itself has to know."""
    (tmp_path / "w.yaml").write_text("hostname: box\n")
    given = ({"base-url": "http://example:1"}, {"log-level": "debug", "listen": "0.0.0.0:7"})
    plan = up._plan((1, 2), tmp_path, (None, tmp_path / "w.yaml"), given)
    assert (plan.control_url, plan.worker_url, plan.hostname) == ("http://example:1", "http://box:7", "box")
    assert "--control-url=http://example:1" in plan.worker
    assert plan.worker[0] == f"--file={tmp_path / 'w.yaml'}"


@pytest.mark.parametrize("flags", [{"total-cores": "many"}, {"no-such-flag": "1"}])
def test_plan_refuses_settings_that_do_not_fit(flags: dict[str, str], tmp_path: Path) -> None:
    """Before anything runs."""
    with pytest.raises(errors.InvalidRequest):
        up._plan((1, 2), tmp_path, (None, None), ({}, flags))


STAND_IN = """
import http.server, json, os, signal, sys
name, flags = sys.argv[1], dict(argument[2:].partition("=")[::2] for argument in sys.argv[2:])
if name == os.environ.get("FAILS"):
    print("it cannot be", file=sys.stderr)
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = 200 if self.path == "/healthz" else 404 if os.environ.get("ALONE") else 307
        self.send_response(ok)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
host, _, port = flags["listen"].rpartition(":")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ.get("ENDS", "0"))))
print(name, "listens", flush=True)
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


@pytest.fixture
def run(tmp_path: Path) -> "Runs":
    return Runs(tmp_path)


class Runs:
    """`traforo up` in a process of its own, with stand-ins for control plane and worker."""

    def __init__(self, home: Path) -> None:
        self.home = home
        stand_in = home / "stand_in.py"
        stand_in.write_text(STAND_IN)
        self.program = home / "program.py"
        self.program.write_text(
            textwrap.dedent(f"""
            import subprocess, sys
            from traforo import cli
            from traforo.cli import children, probes
            real = subprocess.Popen
            def popen(argv, **more):
                return real([sys.executable, {str(stand_in)!r}, *argv[3:]], **more)
            children.subprocess.Popen = popen
            sys.exit(cli.main(sys.argv[1:]))
            """)
        )

    def start(self, *flags: str, **environ: str) -> subprocess.Popen[bytes]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TRAFORO_")}
        paths = [f"--state-dir={self.home / 'state'}", f"--ready-file={self.home / 'ready'}"]
        argv = [sys.executable, str(self.program), "up", "--free-ports", *paths, *flags]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own | environ)


def test_up_runs_until_it_is_told_to_stop(run: "Runs") -> None:
    """It tells where to go, for people and for programs, and stops both."""
    with run.start() as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        while not (run.home / "ready").exists():
            assert process.poll() is None
        facts = json.loads((run.home / "ready").read_text())
        assert [facts["control_url"] in lines[0], facts["worker_url"] in lines[1]] == [True, True]
        assert facts["pids"]["up"] == process.pid
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"stopping\n")
    assert not (run.home / "ready").exists()
    assert [(run.home / "state" / "logs" / f"{n}.err").read_text() for n in ("control", "worker")] == [
        "control listens\n",
        "worker listens\n",
    ]


@pytest.mark.parametrize("name", ["control", "worker"])
def test_one_that_ends_at_start_is_told(name: str, run: "Runs") -> None:
    """Exit code 1, which one it was, what it said, and where there is more; nothing of its log."""
    with run.start(FAILS=name) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert err.decode().splitlines() == [
        "stopping",
        f"error: the {name} process ended with exit code 3: it cannot be",
        f"note: all that it wrote is in {run.home / 'state' / 'logs' / name}.err",
    ]


def test_a_worker_that_does_not_register_is_told(run: "Runs") -> None:
    """After the time that was given for it."""
    with run.start("--start-timeout=4", ALONE="1") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert b"error: cannot start: the worker is not registered in time" in err


def ready(run: "Runs", process: subprocess.Popen[bytes], *, but: int = 0) -> dict[str, int]:
    """Return the processes, once none of them is `but`."""
    while True:
        assert process.poll() is None
        with contextlib.suppress(OSError, ValueError):
            pids: dict[str, int] = json.loads((run.home / "ready").read_text())["pids"]
            if but not in pids.values():
                return pids
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["control", "worker"])
def test_one_that_dies_is_started_again(name: str, run: "Runs") -> None:
    """The other goes on, and whoever reads is told of both."""
    with run.start() as process:
        before = ready(run, process)
        os.kill(before[name], signal.SIGKILL)
        after = ready(run, process, but=before[name])
        assert {one: pid for one, pid in after.items() if one != name} == {
            one: pid for one, pid in before.items() if one != name
        }
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    lines = err.decode().splitlines()
    assert lines[0].startswith(f"error: the {name} process ended by signal 9 (SIGKILL)")
    assert f"note: the {name} process is started again; sandboxes and their commands go on" in lines


def test_one_that_dies_too_often_is_the_end(run: "Runs") -> None:
    """After that the other is stopped, and the exit code is 1."""
    with run.start() as process:
        pid = 0
        for _ in range(up.AGAIN_TIMES + 1):
            pid = ready(run, process, but=pid)["worker"]
            os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.decode().count("is started again") == up.AGAIN_TIMES


def test_an_end_that_is_not_clean_is_told(run: "Runs") -> None:
    """The exit code of `up` says whether the stop went well."""
    with run.start(ENDS="4") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"error: while stopping, the worker process ended with exit code 4" in err


def test_the_examples_name_the_servers(
    worker: FakeServer,
    control: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is printed to try can be pasted."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    plan = up.Plan(control.url, worker.url, "localhost", tmp_path, [], [])
    up._announce(plan)
    text = capsys.readouterr().out
    create = next(line for line in text.splitlines() if "/sandboxes -d" in line)
    done = subprocess.run(["/bin/sh", "-c", create], capture_output=True, check=False)
    if done.returncode == 127:
        pytest.skip("needs curl")
    assert json.loads(done.stdout)["sandbox_id"] in worker.sandboxes
    assert f"TRAFORO_URL={control.url} traforo run" in text


def test_the_examples_of_prod_mode_have_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without one they would all be refused."""
    up._announce(up.Plan("http://c", "http://w", "localhost", tmp_path, [], [], prod=True))
    lines = capsys.readouterr().out.splitlines()
    assert any("prod" in line for line in lines)
    assert all("Bearer $TRAFORO_TOKEN" in line for line in lines if "curl" in line)


def test_one_that_is_slow_to_come_back_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long it takes, since sandboxes go on meanwhile; that it is late is told once."""
    answers = iter([False, False, False, True])
    monkeypatch.setattr(probes, "healthy", lambda url: next(answers))
    stopping = children.StopSignals()
    with stopping.installed(), subprocess.Popen(["sleep", "60"]) as process:
        child = children.Child("worker", process, tmp_path / "words", tmp_path / "log")
        try:
            up._await_answer(up.Plan("http://c", "http://w", "localhost", tmp_path, [], []), child, stopping, 0.0)
        finally:
            process.kill()
    assert (next(answers, None), capsys.readouterr().err.count("does not answer yet")) == (None, 1)
