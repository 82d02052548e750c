"""`python -m traforo.cli.demo`: what a sandbox does, on this machine, from nothing to nothing.

Starts `traforo up` on free ports with its state in a temporary directory, uses one sandbox as a program would, tells
what was asked, what came back and how long each step took, and stops everything. A failure exits with 1, the reason and
the end of the servers' logs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import traforo
from traforo.cli import interrupts, printers
from traforo.sdk import Client, ExecResult, Sandbox, errors

START_SECONDS = 60.0
STOP_SECONDS = 70.0
_WIDTH = 78
T = TypeVar("T")

CODE = """\
import os, platform
print("hello from traforo")
print(f"pid {os.getpid()} on {platform.node()[:20]}, {len(os.listdir('/proc/self/task'))} thread")
"""


NOTE, LOUD = "/tmp/note.txt", "/tmp/loud.txt"  # noqa: S108 - in the sandbox, where nobody else is
TEXT = "written from outside\n"
LOUDER = f"tr a-z A-Z < {NOTE} > {LOUD}"
FAILING = "echo to stderr >&2; exit 7"


class DemoFailed(Exception):
    """A step did not do what it is there to show."""


@dataclass(frozen=True, slots=True)
class Up:
    """The servers of this demo."""

    control_url: str
    worker_url: str


def main() -> int:
    """Run the demo and return the exit code."""
    print(f"traforo {traforo.__version__}: one control plane, one worker, one sandbox, all on this machine\n")
    with interrupts.handled(), tempfile.TemporaryDirectory(prefix="traforo-demo-") as name:
        state = Path(name)
        try:
            started = time.perf_counter()
            with servers(state) as up:
                step("start", f"control plane {up.control_url}, worker {up.worker_url}", time.perf_counter() - started)
                transcript(up)
                stopping = time.perf_counter()
            step("stop", "control plane and worker ended", time.perf_counter() - stopping)
        except (DemoFailed, errors.TraforoError, OSError, subprocess.SubprocessError) as error:
            printers.error(f"the demo failed: {error}", getattr(error, "hint", None))
            _print_logs(state)
            return 1
        except interrupts.Interrupted as error:
            return error.exit_code
    return 0


def transcript(up: Up) -> None:
    """Use one sandbox."""
    with Client(up.control_url) as client:
        sandbox = timed("create", lambda: Sandbox.create(client=client), lambda made: made.id)
        with sandbox:
            phases(sandbox.timings_ms)
            ran("exec", "true", lambda: sandbox.exec(["true"], check=True))
            said = ran("run_code", "python", lambda: sandbox.run_code(CODE, check=True))
            expect(said.stdout.startswith("hello from traforo\n"), f"unexpected output {said.stdout!r}")
            timed("write", lambda: sandbox.files.write(NOTE, TEXT), lambda size: f"{NOTE}, {size} bytes")
            ran("exec", LOUDER, lambda: sandbox.exec(LOUDER, check=True))
            back = timed("read", lambda: sandbox.files.read_text(LOUD), lambda text: f"{LOUD}: {text.strip()!r}")
            expect(back == TEXT.upper(), f"unexpected content {back!r}")
            ended = ran("exec", FAILING, lambda: sandbox.exec(FAILING))
            expect((ended.exit_code, ended.stderr) == (7, "to stderr\n"), f"unexpected end {ended!r}")
            timed("delete", sandbox.delete, lambda _: "dead, and everything it held is free")
        # The first one found an image that nobody had used yet.
        with timed("create", lambda: Sandbox.create(client=client), lambda made: f"{made.id}, another one") as other:
            phases(other.timings_ms)
            timed("delete", other.delete, lambda _: "dead")


def expect(holds: bool, problem: str) -> None:
    """Raise `DemoFailed` unless something holds."""
    if not holds:
        raise DemoFailed(problem)


def step(name: str, what: str, seconds: float, more: str = "") -> None:
    """Print one line of the transcript."""
    print(f"{name:<9} {printers.shown(what):<{_WIDTH}} {seconds * 1000:>9.1f} ms{more}", flush=True)


def timed(name: str, call: Callable[[], T], tell: Callable[[T], str]) -> T:
    """Do one step and print it."""
    start = time.perf_counter()
    value = call()
    step(name, tell(value), time.perf_counter() - start)
    return value


def ran(name: str, what: str, call: Callable[[], ExecResult]) -> ExecResult:
    """Run something in the sandbox and print it with its output."""
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    more = "" if result.duration_ms is None else f"   (in the sandbox {result.duration_ms:.1f} ms)"
    step(name, what, seconds, more)
    for line in result.output.splitlines():
        print(f"{'':<9} | {printers.shown(line)}")
    if result.exit_code:
        print(f"{'':<9} = exit code {result.exit_code}")
    return result


def phases(timings_ms: Mapping[str, float]) -> None:
    """Print the phases of a create as the server measured them."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:.2f} ms" for name, value in timings_ms.items())
    print(f"{'':<9} : at the worker: {told}")


@contextlib.contextmanager
def servers(state: Path) -> Iterator[Up]:
    """Run `traforo up` for a block. Raises `DemoFailed` if it does not start or does not stop cleanly."""
    ready = state / "ready.json"
    argv = [sys.executable, "-m", "traforo.cli", "up", "--free-ports"]
    with (state / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, f"--state-dir={state / 'state'}", f"--ready-file={ready}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        facts = _wait(process, ready)
        yield Up(facts["control_url"], facts["worker_url"])
    finally:
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    expect(code == 0, f"`traforo up` ended with exit code {code}")


def _wait(process: subprocess.Popen[bytes], ready: Path) -> Mapping[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        expect(process.poll() is None, f"`traforo up` ended with exit code {process.returncode}")
        expect(time.monotonic() < deadline, f"`traforo up` was not ready after {START_SECONDS:g} s")
        time.sleep(0.01)
    facts: Mapping[str, str] = json.loads(ready.read_text())
    return facts


def _print_logs(state: Path) -> None:
    for path in sorted([state / "up.log", *(state / "state" / "logs").glob("*")]):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        for line in lines[-15:]:
            print(f"  {path.name}: {printers.shown(line)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
