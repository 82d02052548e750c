"""Workers as this host gives them: the runtime itself, and whole worker processes, run by root or by anybody else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from tests import uids
from traforo.worker.hosts import cgroups

ROOT = Path(__file__).parents[3]
START_SECONDS = 240.0
STOP_SECONDS = 60.0
NOBODY = 12345
"""An ordinary user without an account."""
PYTHON = "/usr/bin/python3"
"""An interpreter that everybody may run, unlike that of the tests perhaps."""


@dataclass
class Worker:
    """A worker process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """End it without a chance to do anything about it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def worker(home: Path, *flags: str, python: str = sys.executable, prefix: Sequence[str] = ()) -> Iterator[Worker]:
    """Run a worker with everything it keeps below `home`, until the end of the block.

    `prefix` is a command that becomes the worker, to make it another user's.
    """
    port = _free_port()
    places = (f"--state-dir={home / 'state'}", f"--run-dir={home / 'run'}", f"--log-file={home / 'worker.log'}")
    argv = [*prefix, python, "-m", "traforo.cli", "worker", f"--listen=127.0.0.1:{port}", *places]
    with (home / "output.log").open("ab") as output:
        process = subprocess.Popen(
            [*argv, *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(home),
            cwd="/",
        )
    found = Worker(f"http://127.0.0.1:{port}", process, home / "worker.log")
    try:
        _wait_until_ready(found, home)
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(home: Path) -> dict[str, str]:
    """Return an environment that is nobody's, with this tree and these packages in it."""
    path = os.pathsep.join((str(ROOT / "src"), str(Path(uvicorn.__file__).parents[1])))
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRAFORO_WORKER_UID_BASE": str(uids.WORKERS),
    }


def doctor(home: Path, *, python: str = sys.executable, prefix: Sequence[str] = ()) -> dict[str, dict[str, object]]:
    """Return what `traforo doctor` finds, by name."""
    argv = [*prefix, python, "-m", "traforo.cli", "doctor", "--json"]
    done = subprocess.run(argv, capture_output=True, env=environment(home), cwd="/", timeout=120, check=False)
    assert done.stdout, done.stderr.decode(errors="replace")
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


@contextlib.contextmanager
def home_of(user: int) -> Iterator[Path]:
    """Give a directory of its own to a user, with a path short enough for sockets and open all the way."""
    path = Path(tempfile.mkdtemp(prefix="trf-"))
    try:
        os.chown(path, user, user)
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def delegated(user: int) -> Iterator[Path]:
    """Make a v2 cgroup, with whatever controllers there are, and give it to a user as a service manager would."""
    mounts = cgroups.parse_mounts(Path("/proc/self/mountinfo").read_text())
    tree = next((Path(mount.path) for mount in mounts if mount.version == 2), None)
    if tree is None or not os.access(tree, os.W_OK):
        pytest.skip("this host has no v2 tree to delegate from")
    for controller in sorted(set(cgroups.CONTROLLERS) & set((tree / "cgroup.controllers").read_text().split())):
        (tree / "cgroup.subtree_control").write_text(f"+{controller}")
    group = tree / f"delegated-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, user, user)
    try:
        yield group
    finally:
        (group / "cgroup.kill").write_text("1")
        _remove(group)


def joining(group: Path, prefix: Sequence[str]) -> list[str]:
    """Return a prefix that joins a cgroup first."""
    return ["/bin/sh", "-c", f'echo 0 >{group}/cgroup.procs && exec "$@"', "sh", *prefix]


def as_nobody() -> list[str]:
    """Return a prefix that becomes an ordinary user. Skips where that, or what it needs, is not to be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None:
        pytest.skip("needs util-linux (setpriv)")
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    check = "import sys, traforo.worker.app; print(sys.version_info[:2])"
    done = subprocess.run(
        [*prefix, PYTHON, "-c", check], capture_output=True, env=environment(Path("/")), cwd="/", check=False
    )
    if done.returncode or done.stdout.decode().strip() != str(sys.version_info[:2]):
        pytest.skip(f"an ordinary user cannot run this tree with {PYTHON}: {done.stderr[-200:].decode()}")
    return prefix


def _remove(group: Path) -> None:
    """Remove a cgroup whose processes are dying, and those below it."""
    deadline = time.monotonic() + 30
    while group.exists() and time.monotonic() < deadline:
        for path in sorted(group.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        time.sleep(0.01)
    assert not group.exists(), f"{group} is still in use"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(found: Worker, home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{found.url}/healthz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            output = (home / "output.log").read_text(errors="replace")[-4000:]
            log = found.said if found.log.exists() else ""
            assert found.process.poll() is None, f"the worker ended:\n{output}\n{log}"
            assert time.monotonic() < deadline, f"the worker did not start:\n{output}\n{log}"
            time.sleep(0.05)
