"""Starts other programs and times them, from a process that does nothing else.

Times are taken here, around `posix_spawn` and the exit, so that whatever the rest of the benchmark holds in memory or
does between rounds is in no figure. The process is the subreaper of what it starts: daemons that an engine leaves
behind become its children, are reaped, and are ended with it.

The file is both sides: `Launcher` for the benchmark, and the program itself, which imports only the standard library
because it is started by its path (`python -I launchers.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 60.0
"""A command that takes longer is ended and counts as failed: two hundred times what the slowest engine needs."""
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER."""
_SETTLE_SECONDS = 2.0
_STDERR_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one command went."""

    ms: float
    status: int | None
    """Exit status, negative for a signal; None when it was ended at the time limit."""
    stderr: str


class Launcher:
    """A process that starts commands; with `hide_unified` it lives where the cgroup v2 mount of a hybrid is unmounted.

    Some engines refuse a hybrid hierarchy outright. Taking the v2 mount away in a mount namespace of the launcher's own
    lets them run on v1 without changing anything on the host and without a step more inside the time taken.
    """

    def __init__(self, environment: Mapping[str, str], *, hide_unified: bool = False) -> None:
        argv = [sys.executable, "-I", str(Path(__file__).resolve())]
        if hide_unified:
            script = 'umount /sys/fs/cgroup/unified && exec "$@"'
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), text=True, bufsize=1
        )

    def run(self, argv: Sequence[str], *, stays: bool = False) -> Outcome:
        """Run one command to its end; `stays` says that it leaves a daemon behind on purpose."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": argv, "stays": stays}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"cannot run {argv[0]!r}: the launcher has ended")
        return Outcome(**json.loads(line))

    def close(self) -> None:
        """End the launcher and what it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=TIMEOUT_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _spawn(argv: list[str], null: int, stderr: int) -> Outcome:
    # Found beforehand: searching PATH is the shell's work, not the engine's.
    program = shutil.which(argv[0]) or argv[0]
    os.ftruncate(stderr, 0)
    os.lseek(stderr, 0, os.SEEK_SET)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)]
    start = time.perf_counter()
    try:
        pid = os.posix_spawn(program, argv, os.environ, file_actions=actions)
    except OSError as error:
        return Outcome(ms=0.0, status=127, stderr=f"cannot start {argv[0]!r}: {error.strerror}")
    pidfd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        in_time = bool(poller.poll(TIMEOUT_SECONDS * 1000))
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    ms = (time.perf_counter() - start) * 1000
    text = os.pread(stderr, 1 << 16, 0).decode(errors="replace").strip()[-_STDERR_BYTES:]
    return Outcome(ms=ms, status=os.waitstatus_to_exitcode(status) if in_time else None, stderr=text)


def _children() -> set[int]:
    """Return the living children, after collecting those that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _settle(kept: set[int]) -> None:
    """Wait for what an engine still does after its command has ended, or the next contender would pay for it."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while _children() - kept and time.monotonic() < deadline:
        time.sleep(0.002)


def _end_children() -> None:
    """Kill what is left. A killed parent hands its children up to this process, hence the repetition."""
    for _ in range(100):
        pids = _children()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _serve() -> None:
    # Ctrl-C is for the benchmark, which then closes this process in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stderr = os.memfd_create("stderr")
    kept: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        outcome = _spawn(request["argv"], null, stderr)
        if request["stays"]:
            kept |= _children()
        else:
            _settle(kept)
        sys.stdout.write(json.dumps({"ms": outcome.ms, "status": outcome.status, "stderr": outcome.stderr}) + "\n")
        sys.stdout.flush()
    _end_children()


if __name__ == "__main__":
    _serve()
