"""`traforo up` and the demo: start, stop, and what is said when something fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import servers
from tests.servers import TRAFORO, Up


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_clean_stop_leaves_nothing(up: Up) -> None:
    """No process, no ready file; it exits with 0, and its sandboxes are gone."""
    with servers.started() as other:
        assert other.run("create").returncode == 0
        home = other.state.parent
    assert [name for name, pid in other.pids.items() if not gone(pid)] == []
    assert not (home / "ready.json").exists()


@pytest.mark.parametrize("name", ["control", "worker"])
def test_one_that_is_killed_is_started_again(up: Up, name: str) -> None:
    """Sandboxes and their commands go on, with a word about what happened."""
    with servers.started() as other:
        sandbox = other.run("create").stdout.decode().strip()
        command = "echo on; while [ ! -e /tmp/gate ]; do sleep 0.05; done; echo off"
        begun = other.run("exec", "-d", sandbox, "--", "sh", "-c", command).stdout.decode().strip()
        os.kill(other.pids[name], signal.SIGKILL)
        ready = other.state.parent / "ready.json"
        deadline = time.monotonic() + 60
        while json.loads(ready.read_text())["pids"][name] == other.pids[name]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert other.run("exec", sandbox, "--", "touch", "/tmp/gate").returncode == 0
        assert other.run("attach", sandbox, begun).stdout == b"on\noff\n"
        words = (other.state.parent / "up.log").read_text()
    assert f"error: the {name} process ended by signal 9" in words


def test_nothing_outlives_up(up: Up) -> None:
    """Even where it is killed without a chance to stop the others."""
    with servers.started(stop=False) as other:
        other.process.kill()
        other.process.wait()
        for name in ("control", "worker"):
            descriptor = _pidfd(other.pids[name])
            if descriptor is not None:
                import select

                assert select.select([descriptor], [], [], 60)[0], f"the {name} process lives on"
                os.close(descriptor)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def test_a_port_that_is_taken_is_told(up: Up, tmp_path: Path) -> None:
    """Exit code 1 before anything starts: a second worker would register with the first control plane."""
    taken = up.control_url.rpartition(":")[2]
    argv = [*TRAFORO, "up", f"--control-port={taken}", f"--state-dir={tmp_path / 's'}"]
    done = subprocess.run(argv, capture_output=True, env=servers.clean_environment(), timeout=60, check=False)
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{taken}: address already in use".encode() in done.stderr
    assert up.run("run", "--", "true").returncode == 0


def test_settings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """Before anything starts."""
    argv = [*TRAFORO, "up", "--worker.total-cores=many", f"--state-dir={tmp_path / 's'}"]
    done = subprocess.run(argv, capture_output=True, env=servers.clean_environment(), timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: cannot read settings: '--total-cores'")
    assert not (tmp_path / "s").exists()


def test_flags_of_the_processes_pass_through(up: Up) -> None:
    """What is told to `up` for a worker reaches the worker."""
    with servers.started(None, "--worker.max-live-sandboxes=1", "--worker.log-level=warning") as other:
        assert other.run("create").returncode == 0
        done = other.run("create")
        assert done.returncode == 1
        assert b"error: " in done.stderr


def test_the_demo_runs() -> None:
    """From nothing to nothing, with a transcript of every step."""
    argv = [sys.executable, "-m", "traforo.cli.demo"]
    done = subprocess.run(argv, capture_output=True, env=servers.clean_environment(), timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    steps = [line.split()[0] for line in done.stdout.decode().splitlines()[1:] if line[:1].isalpha()]
    expected = "start create exec run_code write exec read exec delete create delete stop"
    assert steps == expected.split()
    assert b"| hello from traforo\n" in done.stdout


def test_the_ready_file_is_for_programs(up: Up) -> None:
    """Whoever starts it learns where it listens, and who is who."""
    facts = json.loads((up.state.parent / "ready.json").read_text())
    assert (facts["control_url"], facts["worker_url"]) == (up.control_url, up.worker_url)
    assert facts["pids"]["up"] == up.process.pid
