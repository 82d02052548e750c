"""Code contexts of one worker: made, found, restarted, deleted, prepared ahead, and found again after a restart.

Each interpreter is a command of its own in its sandbox, so the end of its whole tree is certain, its own end is known
exactly, and its pipes and its label outlive this process. It is started by the door that commands are started by, and
is in no list of execs.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ulid

from traforo.domain import clocks, errors, specs, states
from traforo.worker import tasks
from traforo.worker.execs import commands, execs, outcomes
from traforo.worker.execs import runs as worker_runs
from traforo.worker.interpreters import allowances, contexts, labels, languages, marks, runs
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

MAX_CONTEXTS = 100
"""Contexts of one sandbox."""
READY_SECONDS = 30.0
"""How long an interpreter may take to get ready."""
REFILL_SECONDS = 0.5
"""How long after a prepared interpreter was taken the next one is started: the first code comes before it."""
SWEEP_EVERY = 64
"""After so many starts the contexts of dead sandboxes are forgotten."""
WARM_SECONDS = 1.0
"""How long a prepared interpreter is left alone for code that comes at once, before it imports what others may want."""
MAX_SCRIPT = 16 * 1024
"""Characters of a script that a prepared interpreter takes: they have to fit into its pipe."""
MAX_SHOWN = 4096
"""Characters of code that are remembered as the command of its exec."""
_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "GLIBC_", "MALLOC_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "NUMEXPR_")
"""Beginnings of the names of variables that are read once, when a process starts or a library is loaded."""
_ID = re.compile(r"ctx_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Creation:
    """A context as asked for."""

    runtime: str
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    name: str | None = None

    @property
    def plain(self) -> bool:
        """Whether a prepared interpreter does as well."""
        return self.cwd is None and self.user is None and self.name is None and not self.env


class Interpreters:
    """The contexts of one worker. Belongs to one event loop."""

    def __init__(self, runner: execs.Execs, clock: clocks.Clock, modules: Sequence[str] = ()) -> None:
        self._execs = runner
        self._clock = clock
        self._modules = modules
        self._boxes: dict[str, dict[str, contexts.Context]] = {}
        self._adopted: list[contexts.Context] = []
        self._starting: dict[str, int] = {}
        self._allowances: weakref.WeakValueDictionary[str, allowances.Allowance] = weakref.WeakValueDictionary()
        self._preparing: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks = tasks.Tasks()
        self._made = 0
        self._closed = False

    @functools.cached_property
    def _languages(self) -> languages.Languages:
        """All languages; read when first wanted, or by `load`."""
        return languages.load()

    async def load(self) -> None:
        """Read the kernels, so that the first context need not wait for them."""
        self._languages = await asyncio.to_thread(languages.load)

    # ---------------------------------------------------------------------------------------------- making

    async def create(self, entry: entries.Entry, wanted: Creation) -> contexts.Context:
        """Start an interpreter and return its context.

        Raises `StartFailed` (no interpreter, bad cwd), `NotFound` (user), `InvalidRequest`, `Conflict`, `RateLimited`,
        `TooLarge`.
        """
        return await self._tasks.shielded(self._create(entry, wanted))

    async def _create(self, entry: entries.Entry, wanted: Creation) -> contexts.Context:
        preparing = self._preparing.get((entry.text_id, wanted.runtime))
        if preparing is not None and wanted.plain:
            await asyncio.wait([preparing])  # it is further than a new one would be
        found = self._prepared(entry, wanted)
        if found is not None:
            found.claim(_encoded_pairs(entry.spec.env))
            asyncio.get_running_loop().call_later(REFILL_SECONDS, self._refill, entry)
        else:
            found = await self._new(entry, wanted)
        entry.happenings.tell(states.Happening.CONTEXT_CREATED, context_id=found.id, runtime=wanted.runtime)
        return found

    def prepare(self, entry: entries.Entry) -> None:
        """Start the interpreters that the sandbox is to have ready, where it has none; soon, and without a word if
        that cannot be.
        """
        for runtime in dict.fromkeys(entry.spec.prepare):
            key = (entry.text_id, runtime)
            known = key in self._preparing or self._prepared(entry, Creation(runtime)) is not None
            if runtime in languages.RUNTIMES and not known:
                task = self._preparing[key] = self._tasks.spawn(self._prepare(entry, runtime))
                task.add_done_callback(lambda _, key=key: self._preparing.pop(key, None))  # type: ignore[misc]

    def _refill(self, entry: entries.Entry) -> None:
        if entry.running is not None and not self._closed:
            self.prepare(entry)

    async def _prepare(self, entry: entries.Entry, runtime: str) -> None:
        found = await self._new(entry, Creation(runtime), prepared=True)
        if runtime == "python":
            asyncio.get_running_loop().call_later(WARM_SECONDS, self._warm, found)

    async def warm_up(self, entry: entries.Entry) -> None:
        """Start the interpreters that a sandbox is to have ready, and return when nothing is left to do ahead."""
        for runtime in dict.fromkeys(entry.spec.prepare):
            found = await self._new(entry, Creation(runtime), prepared=True)
            if runtime == "python":
                await _ready(found)
                self._warm(found)
            await _ready(found)

    def _warm(self, found: contexts.Context) -> None:
        """Have a prepared interpreter do ahead what code may ask for, unless somebody was faster."""
        if found.prepared and not found.dead:
            found.warm(self._modules)

    def script(self, entry: entries.Entry, wanted: specs.ExecSpec, path: str, code: str) -> worker_runs.Exec | None:
        """Turn a prepared Python into a script that is kept at `path`, and return the exec that it is now.

        None where there is none that is ready, or code, environment, user or directory want a fresh one. Raises
        `Conflict`, `RateLimited`.
        """
        found = self._prepared(entry, Creation("python", wanted.cwd, {}, wanted.user))
        if found is None or len(code) > MAX_SCRIPT or not _late(wanted.env):
            return None
        pairs = _encoded_pairs({**entry.spec.env, **wanted.env})
        pieces = languages.script(path, _encoded("code", code), pairs)
        run = self._execs.take(entry, wanted, found.id, functools.partial(found.become, pieces))
        if run is not None:
            self._drop(found)
            asyncio.get_running_loop().call_later(REFILL_SECONDS, self._refill, entry)
        return run

    def _prepared(self, entry: entries.Entry, wanted: Creation) -> contexts.Context | None:
        if not wanted.plain or not _late(entry.spec.env):
            return None
        for found in self._boxes.get(entry.text_id, {}).values():
            if found.prepared and found.label.runtime == wanted.runtime and not found.dead and not found.doubtful:
                return found
        return None

    async def _new(self, entry: entries.Entry, wanted: Creation, *, prepared: bool = False) -> contexts.Context:
        self._sweep()
        box = self._boxes.setdefault(entry.text_id, {})
        starting = self._starting.get(entry.text_id, 0)
        if len(box) + starting >= MAX_CONTEXTS:
            raise errors.RateLimited(
                f"cannot create a context: the sandbox has {MAX_CONTEXTS}", limit=MAX_CONTEXTS, hint="delete some"
            )
        label = labels.Label(
            interpreter=labels.VERSION,
            context_id=f"ctx_{ulid.ULID()}",
            runtime=wanted.runtime,
            nonce=marks.nonce().decode(),
            created_at=self._clock.now(),
            name=wanted.name,
            cwd=wanted.cwd,
            user=wanted.user,
            env=wanted.env,
            prepared=prepared,
        )
        language = self._languages[wanted.runtime]
        self._starting[entry.text_id] = starting + 1
        try:
            running = await self._start(entry, label, language)
        finally:
            self._starting[entry.text_id] -= 1
        found = contexts.Context(entry, label, language, self._execs, self._tasks, self._allowance(entry))
        found.attach(running, label)
        box[found.id] = found
        try:
            await self._await_ready(found)
        except BaseException:
            self._drop(found)
            self._tasks.spawn(found.kill())
            raise
        return found

    def _allowance(self, entry: entries.Entry) -> allowances.Allowance:
        """Return what all contexts of a sandbox share, for as long as there is one."""
        found = self._allowances.get(entry.text_id)
        if found is None:
            found = self._allowances[entry.text_id] = allowances.Allowance()
        return found

    async def _start(
        self, entry: entries.Entry, label: labels.Label, language: languages.Language
    ) -> contract.RunningExec:
        """Start the first interpreter that the sandbox has."""
        sandbox = entry.running
        if sandbox is None or self._closed:
            raise errors.Conflict(f"cannot start: the sandbox is {entry.state.value}", state=entry.state.value)
        data = labels.encode(label)
        for program in language.programs:
            wanted = commands.spec(
                (program, *language.arguments),
                env={**label.env, **language.env},
                cwd=label.cwd,
                user=label.user,
                stdin_open=True,
            )
            try:
                return await sandbox.exec(commands.start(wanted, entry, data))
            except errors.StartFailed as error:
                missing = error.fields.get("stage") == "exec" and error.fields.get("errno_name") == "ENOENT"
                if not missing:
                    raise
        raise _no_interpreter(label.runtime, language.programs)

    async def _await_ready(self, found: contexts.Context) -> None:
        """Return when an interpreter is ready, or at once where its start has told enough."""
        if not found.language.awaited:
            return
        try:
            await asyncio.wait_for(asyncio.shield(found.ready), READY_SECONDS)
        except TimeoutError as error:
            raise errors.StartFailed(
                f"cannot run {found.label.runtime}: it does not get ready", stage="interpreter", errno_name="ETIMEDOUT"
            ) from error
        if found.dead and found.entry.state is not states.SandboxState.RUNNING:
            raise errors.Conflict(
                f"cannot create a context: the sandbox is {found.entry.state.value}", state=found.entry.state.value
            )
        if found.dead:
            raise _no_interpreter(found.label.runtime, (found.label.runtime,))

    # ---------------------------------------------------------------------------------------------- asking

    def get(self, entry: entries.Entry, context_id: str) -> contexts.Context:
        """Return a context of this sandbox. Raises `MalformedId`, `NotFound`."""
        if not _ID.fullmatch(context_id):
            raise errors.MalformedId(f"malformed context id {context_id[:80]!r}")
        found = self._boxes.get(entry.text_id, {}).get(context_id)
        if found is None or found.prepared:
            raise errors.NotFound(f"no context {context_id!r} in this sandbox", kind="context", id=context_id)
        return found

    def all(self, entry: entries.Entry) -> list[contexts.Context]:
        """Return the contexts of this sandbox, the oldest first."""
        found = [one for one in self._boxes.get(entry.text_id, {}).values() if not one.prepared]
        return sorted(found, key=lambda one: one.id)

    def run(
        self,
        entry: entries.Entry,
        context_id: str,
        code: str,
        *,
        env: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        tag: str | None = None,
    ) -> runs.Run:
        """Have code run in a context when its turn comes; return the run at once.

        Raises `MalformedId`, `NotFound`, `Conflict` (it is dead), `RateLimited`, `InvalidRequest`.
        """
        found = self.get(entry, context_id)
        env = env or {}
        commands.spec(("code",), env=env, timeout_ms=timeout_ms, tag=tag)
        if found.label.runtime == "bash":
            _check_shell(code, env)
        data = _encoded("code", code)
        pairs = _encoded_pairs(env)
        size = len(data) + sum(len(name) + len(value) for name, value in pairs.items())
        found.reserve(size)
        try:
            run = self._execs.record(
                entry,
                command=code[:MAX_SHOWN],
                runtime=found.label.runtime,
                context_id=context_id,
                timeout_ms=timeout_ms,
                tag=tag,
            )
        except BaseException:
            found.unreserve(size)
            raise
        made = runs.Run(run, data, pairs, timeout_ms)
        found.put(made)
        return made

    async def result(self, run: runs.Run) -> dict[str, Any]:
        """Return what `schemas.ContextRun` describes."""
        return {**await self._execs.result(run.exec), **run.answer()}

    # -------------------------------------------------------------------------------------------- changing

    async def restart(self, entry: entries.Entry, context_id: str) -> contexts.Context:
        """Put a fresh interpreter into a context; what ran and what waited in it has ended. Raises as `create`."""
        return await self._tasks.shielded(self._restart(entry, self.get(entry, context_id)))

    async def _restart(self, entry: entries.Entry, found: contexts.Context) -> contexts.Context:
        async with found.changing:
            self._check_there(found)
            await found.kill()
            fresh = {name: getattr(found.label, name) for name in found.label.__struct_fields__}
            label = labels.Label(**{**fresh, "nonce": marks.nonce().decode(), "prepared": False})
            found.attach(await self._start(entry, label, found.language), label)
            await self._await_ready(found)
        entry.happenings.tell(states.Happening.CONTEXT_RESTARTED, context_id=found.id)
        return found

    async def delete(self, entry: entries.Entry, context_id: str) -> None:
        """End a context and everything it started. Raises `MalformedId`, `NotFound`."""
        await self._tasks.shielded(self._delete(entry, self.get(entry, context_id)))

    async def _delete(self, entry: entries.Entry, found: contexts.Context) -> None:
        async with found.changing:
            self._check_there(found)
            found.gone = True
            self._drop(found)
            await found.kill()
        entry.happenings.tell(states.Happening.CONTEXT_DELETED, context_id=found.id)

    def _check_there(self, found: contexts.Context) -> None:
        if found.gone:
            raise errors.NotFound(f"no context {found.id!r} in this sandbox", kind="context", id=found.id)

    def _drop(self, found: contexts.Context) -> None:
        box = self._boxes.get(found.entry.text_id, {})
        if box.get(found.id) is found:
            del box[found.id]

    # ---------------------------------------------------------------------------------- lives of sandboxes

    def claim(self, entry: entries.Entry, running: contract.RunningExec) -> bool:
        """Take over a command of a sandbox that is being adopted, if it is an interpreter; `adopted` is called next."""
        label = labels.decode(running.label)
        if label is None or label.runtime not in languages.RUNTIMES:
            return False
        language = self._languages[label.runtime]
        found = contexts.Context(entry, label, language, self._execs, self._tasks, self._allowance(entry))
        found.attach(running, label, adopted=True)
        self._boxes.setdefault(entry.text_id, {})[found.id] = found
        self._adopted.append(found)
        return True

    async def adopted(self) -> None:
        """Go on with the runs of the interpreters that were taken over."""
        found, self._adopted = self._adopted, []
        for context in found:
            script = next((run for run in self._execs.recorded(context.entry) if run.became == context.id), None)
            if script is not None:
                await self._go_on(context, script)
                continue
            left = [
                runs.Run(run, recalled=True, seen=await self._results(run), timeout_ms=self._left_ms(run))
                for run in sorted(self._execs.recorded(context.entry), key=lambda run: run.id)
                if run.context_id == context.id
            ]
            context.resume(left)
        for entry in {id(context.entry): context.entry for context in found}.values():
            self._conclude_orphans(entry)

    async def _go_on(self, context: contexts.Context, script: worker_runs.Exec) -> None:
        """Give the process of a prepared interpreter that has become a script to those who watch over commands."""
        self._drop(context)
        running = context.give_away()
        if running is not None:
            self._execs.go_on(context.entry, script, running)

    def _left_ms(self, run: worker_runs.Exec) -> int | None:
        if run.timeout_ms is None:
            return None
        return max(1, int(run.timeout_ms - (self._clock.now() - run.started_at) * 1000))

    async def _results(self, run: worker_runs.Exec) -> int:
        """Return how many results of a run an earlier worker wrote down."""
        count = cursor = 0
        while True:
            page = await self._execs.frames(run, cursor=cursor, wait=0.0, limit=1000, encoding="utf8")
            count += sum(frame.type == "result" for frame in page.frames)
            if not page.frames:
                return count
            cursor = page.next_cursor

    def _conclude_orphans(self, entry: entries.Entry) -> None:
        """End runs whose context is gone."""
        box = self._boxes.get(entry.text_id, {})
        for run in self._execs.recorded(entry):
            if run.context_id not in box:
                self._execs.conclude(run, outcomes.LOST)

    def _sweep(self) -> None:
        """Drop what is known of the contexts of dead sandboxes, now and then."""
        self._made += 1
        if self._made % SWEEP_EVERY == 0:
            for text_id, box in list(self._boxes.items()):
                if all(found.dead and not found.entry.live for found in box.values()) and not self._starting.get(
                    text_id
                ):
                    del self._boxes[text_id]
                    self._starting.pop(text_id, None)

    async def close(self) -> None:
        """Leave the interpreters to the next worker."""
        self._closed = True
        for context in itertools.chain.from_iterable(box.values() for box in self._boxes.values()):
            context.detach()
        await self._tasks.drain()


def _no_interpreter(runtime: str, programs: tuple[str, ...]) -> errors.StartFailed:
    names = " or ".join(programs)
    return errors.StartFailed(
        f"cannot run {runtime}: the sandbox has no {names} that works",
        stage="exec",
        errno_name="ENOENT",
        runtime=runtime,
        hint=f"use an image that has {names} in its PATH",
    )


def _check_shell(code: str, env: Mapping[str, str]) -> None:
    if "\0" in code:
        raise errors.InvalidRequest("cannot run code: a shell takes no NUL character", field="code")
    for name in env:
        if not _SHELL_NAME.fullmatch(name):
            raise errors.InvalidRequest(f"cannot set the variable {name[:80]!r} in a shell", field="env")


def _late(env: Mapping[str, str]) -> bool:
    """Tell whether these variables mean the same to a process that runs already."""
    return not any(name.startswith(_EARLY) for name in env)


async def _ready(found: contexts.Context) -> None:
    """Return when a prepared interpreter is ready, or has ended. Raises `StartFailed` when it takes too long."""
    try:
        await asyncio.wait_for(asyncio.shield(found.ready), READY_SECONDS)
    except TimeoutError as error:
        raise errors.StartFailed(
            f"cannot prepare {found.label.runtime}: it does not get ready", stage="interpreter", errno_name="ETIMEDOUT"
        ) from error


def _encoded_pairs(env: Mapping[str, str]) -> dict[bytes, bytes]:
    return {_encoded("env", name): _encoded("env", value) for name, value in env.items()}


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest(f"cannot run code: {name!r} has half a surrogate pair", field=name) from error
