"""The kernel floor as a contender: builds `floor.c` and asks it for one iteration at a time.

Two floors take part. The plain one has the namespaces a container has; the other adds a user namespace with an id range
of its own, which is what traforo always gives, so that the price of that choice can be seen.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Description, MeasurementError, UnavailableError

_NAMESPACES = "pid,mount,net,ipc,uts,cgroup"
_TIMEOUT_SECONDS = 30.0
_SOURCE = Path(__file__).with_name("floor.c")
_BINARY = Path(__file__).parent / "build" / "floor"


def compiled() -> Path:
    """Return the built program, building it when it is missing or older than its source."""
    if _BINARY.exists() and _BINARY.stat().st_mtime > _SOURCE.stat().st_mtime:
        return _BINARY
    _BINARY.parent.mkdir(exist_ok=True)
    flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-static", "-o", str(_BINARY), str(_SOURCE)]
    done = subprocess.run([*_compiler(), *flags], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise UnavailableError(f"floor.c does not build: {done.stderr.strip()[-300:]}")
    return _BINARY


def _compiler() -> list[str]:
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"])
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    # The wheel of a C compiler, where the project's environment has it, stands in for a missing one.
    return [found] if found else [sys.executable, "-m", "ziglang", "cc"]


class Floor:
    """Three processes of the floor program, one for each of its modes, that wait to be asked."""

    def __init__(self, rootfs: Path, *, user_namespace: bool) -> None:
        program = str(compiled())
        namespaces = f"{_NAMESPACES},user" if user_namespace else _NAMESPACES
        sandbox = ["--namespaces", namespaces, "--lower", str(rootfs)]
        arguments = {
            "create": ["--mode", "create", *sandbox],
            "tti": ["--mode", "command", "--command", "/bin/true", *sandbox],
        }
        if not user_namespace:
            arguments["exec"] = ["--mode", "exec", "--command", str(rootfs / "bin" / "true")]
        name = "floor + user ns" if user_namespace else "floor"
        self.description = Description(name=name, note=f"clone3({namespaces}), overlay on tmpfs, /proc, /dev")
        self.steps = tuple(arguments)
        self._programs = {step: _Program([program, *words, "--on-request"]) for step, words in arguments.items()}
        try:
            self.measure("create")
        except MeasurementError as error:
            self.close()
            raise UnavailableError(f"does not work here: {error}", hint="run as root") from error

    def measure(self, step: str) -> Mapping[str, float]:
        """Ask for one iteration."""
        iteration = self._programs[step].ask()
        if iteration.error:
            raise MeasurementError(f"floor: {iteration.error}")
        if step == "exec":
            return {"exec": iteration.ready_ms}
        if step == "tti":
            return {"tti": iteration.ready_ms, "run": iteration.ready_ms + iteration.teardown_ms}
        return {"create": iteration.ready_ms, "delete": iteration.teardown_ms}

    def close(self) -> None:
        """End the three processes; their children die with them."""
        for program in self._programs.values():
            program.close()


@dataclass(frozen=True, slots=True)
class _Iteration:
    ready_ms: float = 0.0
    teardown_ms: float = 0.0
    error: str = ""


class _Program:
    """One floor process."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def ask(self) -> _Iteration:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"\n")
        except BrokenPipeError as error:
            raise MeasurementError("floor: the program has ended") from error
        if not select.select([self._process.stdout], [], [], _TIMEOUT_SECONDS)[0]:
            raise MeasurementError("floor: no answer in time")
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementError("floor: the program has ended")
        return _Iteration(**json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
