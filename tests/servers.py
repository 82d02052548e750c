"""Real servers for tests: `traforo up` as its own process, on free loopback ports, with its state where the test says.

For every directory of tests that needs the real thing. A host that cannot run it is told apart from a defect: `started`
skips with the reason where sandboxes cannot run at all, and fails with the end of the logs for everything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import uids

START_SECONDS = 60.0
STOP_SECONDS = 70.0
TRAFORO = (sys.executable, "-m", "traforo.cli")


@dataclass(frozen=True)
class Up:
    """A running control plane and worker."""

    control_url: str
    worker_url: str
    process: subprocess.Popen[bytes]
    """`traforo up` itself."""
    pids: Mapping[str, int]
    """`up`, `control`, `worker`."""
    state: Path
    """State directory of both; logs are in `logs` below it."""

    def environment(self) -> dict[str, str]:
        """Return the environment for a client of this server."""
        return clean_environment() | {"TRAFORO_URL": self.control_url}

    def run(
        self, *arguments: str, stdin: bytes = b"", token: str = "", timeout: float = 50
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command line against this server."""
        return subprocess.run(
            [*TRAFORO, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment() | {"TRAFORO_TOKEN": token},
            timeout=timeout,
            check=False,
        )


def clean_environment() -> dict[str, str]:
    """Return this environment without settings for traforo, but for user ids that no other process of tests uses."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("TRAFORO_")}
    return found | {"TRAFORO_WORKER_UID_BASE": str(uids.WORKERS)}


@contextlib.contextmanager
def started(
    directory: Path | None = None, *flags: str, environment: Mapping[str, str] | None = None, stop: bool = True
) -> Iterator[Up]:
    """Run `traforo up --free-ports` for a block.

    Args:
        directory: Where state and logs go; a temporary one of its own by default, as sockets need a short path.
        flags: Further flags, such as `--worker.max-live-sandboxes=4`.
        environment: Further variables.
        stop: Assert that it stops cleanly; False where the test kills parts of it.
    """
    own = directory is None
    home = Path(tempfile.mkdtemp(prefix="traforo-")) if directory is None else directory
    try:
        process = launched(home, flags, environment or {})
        try:
            facts = _ready(process, home)
            yield Up(facts["control_url"], facts["worker_url"], process, facts["pids"], home / "state")
        finally:
            code = stopped(process)
        if stop:
            assert code == 0, f"`traforo up` ended with {code}:\n{logs(home)}"
    finally:
        if own:
            shutil.rmtree(home, ignore_errors=True)


def launched(home: Path, flags: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start `traforo up` and return at once; its words go to `up.log` in `home`."""
    argv = [*TRAFORO, "up", "--free-ports", f"--state-dir={home / 'state'}", f"--ready-file={home / 'ready.json'}"]
    with (home / "up.log").open("wb") as log:
        return subprocess.Popen(
            [*argv, *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=clean_environment() | dict(environment),
            process_group=0,
        )


def stopped(process: subprocess.Popen[bytes]) -> int:
    """Ask it to stop, kill it if it does not, and return the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def logs(home: Path) -> str:
    """Return the end of everything it wrote."""
    found = [path for path in sorted([home / "up.log", *(home / "state" / "logs").glob("*")]) if path.is_file()]
    ends = {path.name: path.read_text(errors="replace").splitlines()[-25:] for path in found}
    return "\n".join("\n".join([f"--- {name}", *lines]) for name, lines in ends.items())


def _ready(process: subprocess.Popen[bytes], home: Path) -> Mapping[str, Any]:
    ready = home / "ready.json"
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            _skip_if_nothing_runs_here()
            pytest.fail(f"`traforo up` did not start (exit code {process.poll()}):\n{logs(home)}")
        time.sleep(0.01)
    facts: Mapping[str, Any] = json.loads(ready.read_text())
    return facts


def _skip_if_nothing_runs_here() -> None:
    found = subprocess.run([*TRAFORO, "doctor", "--json"], capture_output=True, env=clean_environment(), check=False)
    if found.returncode == 1 and found.stdout:
        lacks = [f["detail"] for f in json.loads(found.stdout)["findings"] if not f["ok"]]
        pytest.skip(f"no sandbox can run on this host: {'; '.join(lacks)}")
