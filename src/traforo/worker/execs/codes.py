"""Code in a language instead of a command: put into a file of the sandbox, run by its interpreter, removed afterwards.

Code that does not compile is refused with nothing of it executed. bash runs a script line by line, so it is asked
first; the others compile before they run, and are asked only when their own end looks like a refusal. An error that
the code met while it ran is never called a refusal: a second, compiling-only run has to refuse it as well.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from traforo.domain import errors, ids, specs, states
from traforo.worker import tasks
from traforo.worker.execs import commands, execs
from traforo.worker.files import files
from traforo.worker.sandboxes import entries

CHECK_TIMEOUT_MS = 10_000
"""Limit of a compiling-only run."""
DIRECTORY = "/tmp"  # noqa: S108 - of the sandbox; names in it are new, and files are made exclusively
"""Where code lies while it runs."""
_REFUSED = 65
_SAID = 16 * 1024  # characters of stderr that are looked at
_COMPILE = (
    "import sys\n"
    "try:\n"
    "    compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec')\n"
    "except (SyntaxError, ValueError):\n"
    f"    sys.exit({_REFUSED})\n"
)


@dataclass(frozen=True, slots=True)
class Language:
    """How code of one language is run and checked."""

    programs: tuple[str, ...]
    """Interpreters, the best first."""
    suffix: str
    check: tuple[str, ...]
    """Arguments of the interpreter that compile a file, whose name follows, and run nothing."""
    refusals: frozenset[int]
    """Exit codes by which that run says that the code does not compile."""
    check_first: bool = False
    """Whether running it would execute what stands before the mistake."""
    suspicion: re.Pattern[str] | None = None
    """What stderr says when the code may not have compiled."""


LANGUAGES: Mapping[str, Language] = {
    "python": Language(
        ("python3", "python"),
        ".py",
        ("-E", "-S", "-c", _COMPILE),
        frozenset({_REFUSED}),
        suspicion=re.compile(r"SyntaxError|IndentationError|TabError|null byte"),
    ),
    "node": Language(("node",), ".js", ("--check",), frozenset({1}), suspicion=re.compile("SyntaxError")),
    "bash": Language(("bash",), ".sh", ("-n",), frozenset({1, 2}), check_first=True),
}


@dataclass(frozen=True, slots=True)
class Code:
    """Code to run."""

    text: str
    runtime: str
    """Name of its language."""
    timeout_ms: int
    cwd: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: str | None = None
    tag: str | None = None
    """What its caller calls it."""


class Script(Protocol):
    """Somebody who may have a Python that runs already; `interpreters.services.Interpreters.script` is one."""

    def __call__(self, entry: entries.Entry, wanted: specs.ExecSpec, path: str, code: str) -> execs.Exec | None:
        """Run code as a script that is kept at `path`; None, and nothing has happened, where that cannot be."""
        ...


@dataclass(frozen=True, slots=True)
class _Started:
    """Code that runs."""

    run: execs.Exec
    program: str
    path: str


class Codes:
    """Runs code in sandboxes."""

    def __init__(
        self, runner: execs.Execs, store: files.Files, script: Script | None = None, directory: str = DIRECTORY
    ) -> None:
        self._execs = runner
        self._files = store
        self._script = script
        self._directory = directory
        self._tasks = tasks.Tasks()

    async def run(self, entry: entries.Entry, code: Code) -> dict[str, Any]:
        """Run code and return its result, as `schemas.Exec` describes it, whether the caller stays or not.

        Raises `SyntaxRejected`, `StartFailed` (no interpreter), `NotFound` (user), `Conflict`, `TooLarge`, `DiskFull`.
        """
        return await self._tasks.shielded(self._run(entry, code))

    async def begin(self, entry: entries.Entry, code: Code) -> execs.Exec:
        """Start code and return at once. Raises as `run`; `SyntaxRejected` for bash alone."""
        started = await self._tasks.shielded(self._start(entry, code))
        self._tasks.spawn(self._clean_after(entry, code, started))
        return started.run

    async def _run(self, entry: entries.Entry, code: Code) -> dict[str, Any]:
        started = await self._start(entry, code)
        try:
            await self._execs.wait(started.run)
            result = await self._execs.result(started.run)
            if _suspicious(LANGUAGES[code.runtime], started, result):
                checked = await self._check(entry, code, started.program, started.path)
                if _refused(LANGUAGES[code.runtime], checked):
                    self._execs.forget_hidden(checked)
                    raise _rejected(result)
                self._execs.forget_hidden(checked)
            await self._execs.keep(started.run)
            return result
        finally:
            self._tasks.spawn(self._remove(entry, code, started.path))

    async def _start(self, entry: entries.Entry, code: Code) -> _Started:
        """Put the code into a file and start its interpreter; leaves no file when that fails."""
        language = LANGUAGES[code.runtime]
        path = f"{self._directory}/{ids.new_exec_id()}{language.suffix}"
        if code.runtime == "python" and self._script is not None:
            program = language.programs[0]
            run = self._script(entry, _spec(code, (program, path)), path, code.text)
            if run is not None:
                return _Started(run, program, path)
        content = files.pieces(code.text.encode())
        await self._files.write(entry, path, content, user=code.user, mode=0o600, exclusive=True)
        try:
            if language.check_first:
                await self._refuse_early(entry, code, language, path)
            return await self._start_first(entry, code, language.programs, path)
        except BaseException:
            self._tasks.spawn(self._remove(entry, code, path))
            raise

    async def _start_first(self, entry: entries.Entry, code: Code, programs: tuple[str, ...], path: str) -> _Started:
        """Start the first interpreter that the sandbox has."""
        for program in programs:
            try:
                run = await self._execs.start(entry, _spec(code, (program, path)))
            except errors.StartFailed as error:
                if not _missing(error) or program != programs[-1]:
                    if _missing(error):
                        continue
                    raise
                raise _no_interpreter(error, code, programs) from error
            return _Started(run, program, path)
        raise errors.Internal("cannot run code in a language without an interpreter")

    async def _refuse_early(self, entry: entries.Entry, code: Code, language: Language, path: str) -> None:
        try:
            checked = await self._check(entry, code, language.programs[0], path)
        except errors.StartFailed as error:
            if _missing(error):
                raise _no_interpreter(error, code, language.programs) from error
            raise
        if _refused(language, checked):
            self._execs.show(entry, checked)
            raise _rejected(await self._execs.result(checked))
        self._execs.forget_hidden(checked)

    async def _check(self, entry: entries.Entry, code: Code, program: str, path: str) -> execs.Exec:
        """Compile without running, and return the exec of that when it has ended."""
        argv = (program, *LANGUAGES[code.runtime].check, path)
        short = dataclasses.replace(code, timeout_ms=min(code.timeout_ms, CHECK_TIMEOUT_MS), tag=None)
        run = await self._execs.start(entry, _spec(short, argv), hidden=True)
        await self._execs.wait(run)
        return run

    async def _clean_after(self, entry: entries.Entry, code: Code, started: _Started) -> None:
        await self._execs.wait(started.run)
        await self._remove(entry, code, started.path)

    async def _remove(self, entry: entries.Entry, code: Code, path: str) -> None:
        if entry.running is not None:
            await self._files.remove(entry, path, user=code.user, recursive=False, force=True)


def _spec(code: Code, argv: tuple[str, ...]) -> specs.ExecSpec:
    return commands.spec(
        argv,
        env=code.env,
        cwd=code.cwd,
        user=code.user,
        timeout_ms=code.timeout_ms,
        runtime=code.runtime,
        tag=code.tag,
    )


def _suspicious(language: Language, started: _Started, result: Mapping[str, Any]) -> bool:
    """Tell whether a result may mean that nothing was executed because the code does not compile."""
    if language.suspicion is None or result["exit_code"] != 1 or result["stderr_truncated"]:
        return False
    said = result["stderr"][-_SAID:]
    if not language.suspicion.search(said):
        return False
    # A stack of node with the file in it was left by code that ran.
    return re.search(rf"^\s+at .*{re.escape(started.path)}:\d+:\d+", said, re.MULTILINE) is None


def _refused(language: Language, checked: execs.Exec) -> bool:
    outcome = checked.outcome
    return outcome is not None and outcome.end is states.ExecEnd.EXITED and outcome.exit_code in language.refusals


def _missing(error: errors.StartFailed) -> bool:
    return error.fields.get("stage") == "exec" and error.fields.get("errno_name") == "ENOENT"


def _no_interpreter(error: errors.StartFailed, code: Code, programs: tuple[str, ...]) -> errors.StartFailed:
    names = " or ".join(programs)
    return errors.StartFailed(
        f"cannot run {code.runtime}: the sandbox has no {names}",
        hint=f"use an image that has {names} in its PATH",
        **{**error.fields, "runtime": code.runtime},
    )


def _rejected(result: Mapping[str, Any]) -> errors.SyntaxRejected:
    told = {name: result[name] for name in ("exec_id", "runtime", "stdout", "stderr", "exit_code")}
    return errors.SyntaxRejected("cannot run the code: it does not compile", **told)
