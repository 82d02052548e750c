"""A control plane and a worker as processes that a test may kill at any moment and start again on the same state.

The spawner is nobody's child, so it is found by the socket it serves. Whatever a test leaves alive is ended here, and
only what belongs to its own directories: others may run workers on the same machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import servers
from traforo.cli import probes

START_SECONDS = 40.0
STOP_SECONDS = 40.0
SECRET = "a secret of faults, long enough for HS256 signatures"
T = TypeVar("T")


def until(
    found: Callable[[], T | None], what: str, seconds: float = 20.0, *, facts: Callable[[], object] | None = None
) -> T:
    """Ask again and again until something that is not falsy comes back, and return it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}" + (f"; {facts()!r}" if facts else ""))
        time.sleep(0.01)
    return value


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that was found to be ours a moment ago, and return when a killed one is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        if number == signal.SIGKILL:
            until(lambda: ended(pid), f"the end of process {pid}")
    finally:
        os.close(descriptor)


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or dead and not yet reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class Plane:
    """One server process, `traforo <name>`."""

    name: str
    url: str
    flags: Sequence[str]
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.home / f"{self.name}.log"

    def launch(self, *flags: str) -> None:
        """Start it and return at once."""
        assert self.process is None or self.process.poll() is not None
        with (self.home / f"{self.name}.err").open("ab") as words:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "traforo.cli", self.name, f"--log-file={self.log}", *self.flags, *flags],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=servers.clean_environment() | dict(self.environment),
                process_group=0,
            )

    def ready(self) -> None:
        """Return when it answers; fail if it does not."""

        def healthy() -> bool:
            if self.process is None or self.process.poll() is not None:
                code = None if self.process is None else self.process.returncode
                pytest.fail(f"the {self.name} did not start (exit code {code}):\n{self.words()}")
            return probes.healthy(self.url)

        until(healthy, f"an answer of the {self.name}", START_SECONDS, facts=self.words)

    def start(self, *flags: str) -> None:
        """Start it and return when it answers."""
        self.launch(*flags)
        self.ready()

    def kill(self) -> None:
        """End it by SIGKILL, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code; -9 where it had to be killed."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Return the exit code of one that was asked to stop; -9 where it had to be killed."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of its log with this event."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line.get("event") == name]

    def unexpected(self) -> str:
        """Return what it wrote beside its log, and what its log has of defects."""
        beside = (self.home / f"{self.name}.err").read_text()
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return beside + "\n".join(line for line in lines if "Traceback" in line and "journal_" not in line)

    def words(self) -> str:
        """Return the end of what it wrote."""
        files = [self.home / f"{self.name}.err", self.log]
        return "\n".join(
            line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()[-15:]
        )


@dataclass
class Fleet:
    """One control plane and one worker, and what belongs to them."""

    home: Path
    control: Plane
    worker: Plane
    secret: str

    @property
    def state(self) -> Path:
        """State directory of the worker."""
        return self.home / "worker"

    @property
    def run(self) -> Path:
        """Directory of its sockets."""
        return self.home / "run"

    @property
    def group(self) -> str:
        """Name of the worker's control groups."""
        return "traforo-" + hashlib.sha256(str(self.run).encode()).hexdigest()[:12]

    def spawner(self) -> int | None:
        """Return the process id of the spawner; None if there is none."""
        wanted = os.fsencode(f"{self.run}/spawner.sock")
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[1:3] == [b"spawner", wanted] and not ended(int(entry.name)):
                    found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        # A child has these words too until it has become an init.
        return next((pid for pid, parent in found.items() if parent not in found), None)

    def kill_spawner(self) -> int:
        """End the spawner by SIGKILL and return what its process id was."""

        def killed() -> int | None:
            pid = self.spawner()
            with contextlib.suppress(ProcessLookupError):  # a child that its spawner left behind a moment ago
                if pid is not None:
                    kill(pid)
                    return pid
            return None

        return until(killed, "a spawner")

    def kill_both(self) -> None:
        """End worker and spawner by SIGKILL, with no time for either to notice."""
        spawner = os.pidfd_open(until(self.spawner, "a spawner"))
        try:
            os.kill(self.worker.pid, signal.SIGKILL)
            signal.pidfd_send_signal(spawner, signal.SIGKILL)
        finally:
            os.close(spawner)
        self.worker.kill()

    def processes(self) -> list[int]:
        """Return the processes in control groups of this worker: inits and what runs in their sandboxes."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if f"/{self.group}/" in (entry / "cgroup").read_text() and not ended(int(entry.name)):
                        found.append(int(entry.name))
        return found

    def init(self, sandbox_id: str) -> int:
        """Return the process id of the init of a sandbox: of its processes the one that was first."""
        found = [
            int(pid)
            for path in self.groups()
            if path.name == sandbox_id
            for pid in (path / "cgroup.procs").read_text().split()
            if Path(f"/proc/{pid}/comm").read_text() == "init\n"
        ]
        return min(found)

    def groups(self) -> list[Path]:
        """Return the directories of its control groups, in every hierarchy, those of the worker itself last."""
        tops = [Path("/sys/fs/cgroup") / self.group, *Path("/sys/fs/cgroup").glob(f"*/{self.group}")]
        found = []
        for top in tops:
            found += [Path(path) for path, _, _ in os.walk(top, topdown=False)]
        return sorted(found, key=lambda path: -len(path.parts))

    def sandbox_groups(self) -> list[Path]:
        """Return the directories below the worker's own, but for those that are made ahead for anybody."""
        return [path for path in self.groups() if path.name != self.group and not path.name.startswith("ahead.")]

    def remains(self) -> dict[str, list[str]]:
        """Return what the control groups of sandboxes hold, and what the spawner does: for the words of a failure."""
        found = {
            str(path): [_told(pid) for pid in (path / "cgroup.procs").read_text().split()]
            for path in self.sandbox_groups()
        }
        return found | {"spawner": [_told(str(self.spawner()))]}

    def images(self) -> list[str]:
        """Return the names of disk images."""
        disks = self.state / "disks"
        return sorted(path.name for path in disks.iterdir()) if disks.is_dir() else []

    def ensure(self) -> None:
        """Start what does not run, as it is without any further flags."""
        for plane in (self.control, self.worker):
            if plane.process is None or plane.process.poll() is not None:
                plane.launch()
        for plane in (self.control, self.worker):
            plane.ready()

    def destroy(self) -> None:
        """End everything of this fleet and remove its traces, however it was left."""
        self.control.kill()
        self.worker.kill()
        if (pid := self.spawner()) is not None:
            with contextlib.suppress(ProcessLookupError):
                kill(pid)
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # in a control group that has our name: no one else's
            time.sleep(0.05)
        for path in self.groups():
            with contextlib.suppress(OSError):
                path.rmdir()
        shutil.rmtree(self.home, ignore_errors=True)


def _told(pid: str) -> str:
    """Say what a process is and where in the kernel it waits."""
    with contextlib.suppress(OSError):
        place = Path(f"/proc/{pid}")
        return " ".join([*(place / "stat").read_text().split()[:4], *(place / "stack").read_text().split()[1:4:2]])
    return f"{pid} is gone"


def fleet(*worker_flags: str, secret: str = "", hostname: str = "faults.test") -> Fleet:
    """Make a fleet of which nothing runs yet, in a directory of its own with a short name: sockets need that."""
    home = Path(tempfile.mkdtemp(prefix="traforo-f-"))
    control_port, worker_port = probes.free_ports("127.0.0.1", 2)
    control_url, worker_url = f"http://127.0.0.1:{control_port}", f"http://127.0.0.1:{worker_port}"
    environment = {"TRAFORO_JWT_SECRET": secret} if secret else {}
    control = Plane(
        "control",
        control_url,
        [f"--listen=127.0.0.1:{control_port}", f"--state-dir={home / 'control'}"],
        home,
        environment,
    )
    worker = Plane(
        "worker",
        worker_url,
        [
            f"--listen=127.0.0.1:{worker_port}",
            f"--state-dir={home / 'worker'}",
            f"--run-dir={home / 'run'}",
            f"--control-url={control_url}",
            f"--hostname={hostname}",
            f"--base-url={worker_url}",
            *worker_flags,
        ],
        home,
        environment,
    )
    return Fleet(home, control, worker, secret)


@contextlib.contextmanager
def lent(*worker_flags: str, secret: str = "", control: bool = False) -> Iterator[Fleet]:
    """Run a fleet for a block; without `control` it is a worker alone."""
    made = fleet(*worker_flags, secret=secret)
    try:
        if control:
            made.ensure()
        else:
            made.worker.start()
        yield made
    finally:
        made.destroy()
