import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from traforo.cli import processes
from traforo.domain import errors
from traforo.settings import control


def test_serve_loads_configures_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as it takes over the log: settings from each source, log lines in the file."""
    (tmp_path / "file.yaml").write_text("placement-retry-max: 5\n")
    code = f"""
from pathlib import Path
from traforo.cli import processes
from traforo.settings import control
from traforo.telemetry import logs
async def run(settings):
    print(settings.listen, settings.placement_retry_max, settings.worker_lease_ttl)
    logs.get("x").info("hello")
flags = {{"listen": ":1", "log.file": {str(tmp_path / "log")!r}}}
print(processes.serve("control", control.ControlSettings, flags, Path({str(tmp_path / "file.yaml")!r}), run))
"""
    environ = {**os.environ, "TRAFORO_CONTROL_WORKER_LEASE_TTL": "60"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environ, check=True, text=True)
    assert (done.stdout, done.stderr) == (":1 5 60.0\n0\n", "")
    line = json.loads((tmp_path / "log").read_text())
    assert (line["event"], line["service"]) == ("hello", "control")


def test_settings_that_do_not_fit_stop_it() -> None:
    """Before anything is run."""

    async def run(settings: control.ControlSettings) -> None:
        raise AssertionError

    with pytest.raises(errors.InvalidRequest, match="--listen"):
        processes.serve("control", control.ControlSettings, {"listen": "nowhere"}, None, run)


CHILD = """
import sys
from traforo.cli import processes
processes.end_with_parent(sys.argv[1])
print(1, flush=True)
input()
"""


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """The kernel sends SIGTERM when the parent is killed."""
    code = f"""
import subprocess, sys, os
argv = [sys.executable, "-c", {CHILD!r}, str(os.getpid())]
child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert parent.returncode == -signal.SIGKILL
    try:
        descriptor = os.pidfd_open(int(parent.stdout))
    except ProcessLookupError:
        return
    import select

    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)


def test_a_child_whose_parent_is_gone_ends_at_once() -> None:
    """It may die before the kernel was asked to tell."""
    done = subprocess.run([sys.executable, "-c", CHILD, "1"], input=b"\n", capture_output=True, check=False)
    assert done.returncode == -signal.SIGTERM


def test_without_a_parent_nothing_is_asked() -> None:
    """A server that was started alone lives alone."""
    processes.end_with_parent(None)
