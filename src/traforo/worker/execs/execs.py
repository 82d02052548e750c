"""Commands in sandboxes: starting them, and everything that can be asked about them then and later.

Output is moved into a log as it comes, so no reader can slow a command down and a disconnect loses nothing; a command
goes on when the one who waits for it goes away. It speaks no HTTP, leaves to `commands` what a command
may be, and to `watches` how its end is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from traforo.domain import clocks, errors, ids, specs
from traforo.settings import worker as settings_worker
from traforo.telemetry import logs, metrics
from traforo.worker.execs import boxes, commands, controls, outcomes, results, runs, streams, watches
from traforo.worker.journal import records
from traforo.worker.outputs import budgets, framelogs, frames, logstores
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

Exec = runs.Exec
T = TypeVar("T")

MAX_RESULT_BYTES = 16 * 1024 * 1024
"""Longest value of a frame of kind `RESULT`."""
_LOGS_PER_SANDBOX = 4
_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept and told of one exec."""

    log: framelogs.Limits = field(default_factory=framelogs.Limits)
    result_bytes: int = 8 * 1024 * 1024
    """Bytes of each stream that a result carries."""
    sandbox_bytes: int = boxes.DEFAULT_LOG_BYTES
    """Bytes of all logs of one sandbox; beyond it those of ended execs are dropped, and then parts of the others."""
    total_bytes: int = 0
    """The same for the logs of all sandboxes, where the one that has most loses first. 0: half of what the disk has."""


def limits(settings: settings_worker.WorkerSettings) -> Limits:
    """Return the limits that an operator has set."""
    segment = min(settings.exec_log_segment_bytes, settings.exec_log_max_bytes)
    log = framelogs.Limits(settings.exec_log_max_bytes, segment)
    return Limits(log, settings.result_max_bytes, _LOGS_PER_SANDBOX * settings.exec_log_max_bytes)


class FramePage(msgspec.Struct, frozen=True):
    """What `schemas.FramePage` describes."""

    frames: list[results.ShownFrame]
    next_cursor: int
    has_more: bool
    wait_applied: float
    dropped: int


class Execs:
    """All execs of one worker. Belongs to one event loop. `directory` is for logs and nothing else."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: clocks.Clock,
        journal: watches.Journal,
        metrics: metrics.WorkerMetrics,
        limits: Limits | None = None,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._limits = limits or Limits()
        self._boxes: dict[str, boxes.Box] = {}
        self._store = logstores.LogStore(directory, self._limits.log)
        self._total = budgets.Total(self._limits.total_bytes or logstores.room(directory))
        """Of the logs of all sandboxes."""
        self._watch = watches.Watch(self._store, clock=clock, journal=journal, metrics=metrics)
        self._start_duration = metrics.worker_exec_start_duration_seconds
        self._log = logs.get(__name__)
        self._closed = False
        self.claim: Callable[[entries.Entry, contract.RunningExec], bool] | None = None
        """Takes over, when a sandbox is adopted, commands that are somebody else's; True for those."""

    # ------------------------------------------------------------------------------------------- starting

    async def start(self, entry: entries.Entry, wanted: specs.ExecSpec, *, hidden: bool = False) -> Exec:
        """Start a command and return when it runs. A `hidden` one is in no list, and its caller forgets or shows it.

        A worker that comes later kills hidden ones.

        Raises `StartFailed` (with `exec_id`; nothing ran and nothing is remembered), `NotFound` (user), `Conflict`,
        `RateLimited`, `TooLarge`.
        """
        accepted = self._clock.monotonic()
        if self._journal.full:
            await self._journal.room()
        sandbox = self._sandbox(entry)
        run = self._new(entry, wanted)
        run.hidden = hidden
        asked = commands.start(wanted, entry, _label(run, stdin_given=wanted.stdin and not wanted.stdin_open))
        box = self._box(entry)
        box.reserve()
        run.began = self._clock.monotonic()
        try:
            running = await sandbox.exec(asked)
        except errors.StartFailed as error:
            error.fields["exec_id"] = run.id
            raise
        finally:
            box.starting -= 1
        self._start_duration.observe(self._clock.monotonic() - accepted)
        run.log = self._store.new(run, box.budget)
        self._watch.attach(box, run, running)
        if wanted.stdin_data is not None:
            await self._watch.give(run, wanted.stdin_data, finish=not wanted.stdin_open)
        if box.dead is not None and not running.ended.done():  # the sandbox died meanwhile, and its burial is over
            self._watch.end(box, run, contract.ExecExit())
        return run

    def take(
        self,
        entry: entries.Entry,
        wanted: specs.ExecSpec,
        became: str,
        become: Callable[[], contract.RunningExec | None],
    ) -> Exec | None:
        """Take in a command whose process is there already: `become` turns the interpreter `became` into it.

        None, and nothing has happened, where that cannot be now. Raises `Conflict`, `RateLimited`.
        """
        self._sandbox(entry)
        if self._journal.full:
            return None
        accepted = self._clock.monotonic()
        box = self._box(entry)
        box.reserve()
        try:
            running = become()
        finally:
            box.starting -= 1
        if running is None:
            return None
        self._start_duration.observe(self._clock.monotonic() - accepted)
        run = self._new(entry, wanted)
        run.became, run.began = became, accepted
        run.log = self._store.new(run, box.budget)
        self._watch.attach(box, run, running)
        self._journal.put_exec(run.record())  # soon: no label of the runtime tells the next worker what this is
        return run

    def go_on(self, entry: entries.Entry, run: Exec, running: contract.RunningExec) -> None:
        """Watch over a command of `take` again, which an earlier worker took in and `recorded` gave."""
        self._watch.attach(self._box(entry), run, running)

    def record(
        self,
        entry: entries.Entry,
        *,
        command: str | list[str],
        runtime: str | None,
        context_id: str,
        timeout_ms: int | None,
        tag: str | None = None,
    ) -> Exec:
        """Take in an exec that is no process of its own: it runs, is listed and journaled like any other.

        Its maker feeds it, keeps its deadline and concludes it. Raises `Conflict` (the sandbox does not run),
        `RateLimited`.
        """
        self._sandbox(entry)
        box = self._box(entry)
        box.reserve()
        box.starting -= 1
        run = Exec(
            ids.new_exec_id(),
            entry.text_id,
            commands.cut(command),
            self._clock.now(),
            runtime=runtime,
            timeout_ms=timeout_ms,
            tag=tag,
            context_id=context_id,
        )
        run.began = self._clock.monotonic()
        run.log = self._store.new(run, box.budget)
        self._watch.begin(box, run)
        return run

    async def keep(self, run: Exec) -> None:
        """Return when a crash would not make an exec unknown: of those of `record` and `take` no runtime knows."""
        if run.context_id is not None or run.became is not None:
            self._journal.put_exec(run.record())
            await self._journal.flush()

    def feed(self, run: Exec, kind: frames.Kind, payload: bytes) -> None:
        """Add output (`STDOUT`, `STDERR`) or one whole value (`RESULT`, JSON text) to an exec of `record`.

        What the disk refuses is counted as lost, and told to readers. Without effect after its end. Raises `TooLarge`
        for a value of more than `MAX_RESULT_BYTES`.
        """
        if run.log is None or run.ending or not payload:
            return
        if kind is frames.Kind.RESULT and len(payload) > MAX_RESULT_BYTES:
            raise errors.TooLarge(
                f"cannot keep a value of more than {MAX_RESULT_BYTES} bytes", limit=MAX_RESULT_BYTES, field="result"
            )
        ms = int(self._clock.now() * 1000)
        try:
            if kind is frames.Kind.RESULT:
                run.log.append(kind, payload, ms)
            else:
                run.log.add(kind, payload, ms)
        except OSError as error:
            if kind is frames.Kind.RESULT:
                run.log.lost = run.log.lost.plus(kind, len(payload))
            self._log.error("output_not_written", exec_id=run.id, sandbox_id=run.sandbox_id, error=str(error))
        run.notify()

    def conclude(self, run: Exec, outcome: outcomes.Outcome) -> None:
        """Tell how an exec of `record` ended. Without effect when it has ended, as by the death of its sandbox."""
        box = self._boxes.get(run.sandbox_id)
        if box is not None:
            self._watch.conclude(box, run, outcome)

    def recorded(self, entry: entries.Entry) -> list[Exec]:
        """Return the execs of `record`, and after a restart those of `take`, that nobody watches and that have no end.

        After a restart they are left to whoever has a `claim` in their sandbox, and lost where nobody has.
        """
        box = self._boxes.get(entry.text_id)
        return [] if box is None else [run for run in box.running.values() if _recorded(run)]

    def show(self, entry: entries.Entry, run: Exec) -> None:
        """Let a hidden exec that has ended be read like any other."""
        for old in self._box(entry).show(run):
            self._watch.forget(old)
        self._journal.put_exec(run.record())

    def forget_hidden(self, run: Exec) -> None:
        """Drop a hidden exec that has ended."""
        self._watch.forget(run)

    # --------------------------------------------------------------------------------------------- asking

    def get(self, entry: entries.Entry, exec_id: str) -> Exec:
        """Return an exec of this sandbox. Raises `MalformedId`, `NotFound`."""
        ids.parse_exec_id(exec_id)
        box = self._boxes.get(entry.text_id)
        run = box.get(exec_id) if box is not None else None
        if box is None or run is None:
            raise errors.NotFound(f"no exec {exec_id!r} in this sandbox", kind="exec", id=exec_id)
        self._settle(box, entry)
        return run

    def page(
        self,
        entry: entries.Entry,
        limit: int,
        cursor: str | None,
        wanted: Callable[[Exec], bool] | None = None,
    ) -> tuple[list[Exec], str | None]:
        """Return at most `limit` execs, newest first, and the cursor of the next page; of the `wanted` ones alone.

        Raises `InvalidRequest`.
        """
        if cursor is not None:
            try:
                ids.parse_exec_id(cursor)
            except errors.MalformedId as error:
                raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor") from error
        box = self._boxes.get(entry.text_id)
        if box is None:
            return [], None
        self._settle(box, entry)
        return box.page(limit, cursor, wanted)

    async def wait(self, run: Exec) -> None:
        """Return when the exec has ended; nothing happens to it if the caller goes away."""
        await run.end()

    async def result(self, run: Exec) -> dict[str, Any]:
        """Return what `schemas.Exec` describes: the exec and its output so far."""
        answer = run.summary()
        output = await self._output(run)
        answer["stdout"] = output.stdout
        answer["stderr"] = output.stderr
        answer["output"] = output.output
        answer["stdout_truncated"] = output.stdout_truncated
        answer["stderr_truncated"] = output.stderr_truncated
        return answer

    async def _output(self, run: Exec) -> results.Output:
        if run.log is None and run.outcome is not None and not run.logged:
            return results.NO_OUTPUT  # as of most commands; there is no file to look for
        log = await self._log_of(run)
        read = functools.partial(
            results.collect, log.view(), self._limits.result_bytes, log.dropped, ended=run.outcome is not None
        )
        return await self._store.read(log, read, inline_bytes=results.INLINE_BYTES)

    async def frames(self, run: Exec, *, cursor: int, wait: float, limit: int, encoding: results.Encoding) -> FramePage:
        """Return frames from `cursor` on. Where there is none yet, wait for one, or the end, for `wait` seconds."""
        log = await self._log_of(run)
        waited = await _news(run, log, cursor, wait)
        view, outcome = log.view(seal=True), run.outcome
        start = max(cursor, log.oldest)
        shown: list[results.ShownFrame] = []
        if start < view.count:
            read = functools.partial(results.page, view, start, limit, encoding)
            shown = await self._store.read(log, read, inline_bytes=results.INLINE_BYTES)
        first = shown[0].cursor if shown else start
        dropped = log.position(first) - log.position(cursor)
        next_cursor = shown[-1].cursor + 1 if shown else start
        if outcome is not None and next_cursor == view.count and len(shown) < limit:
            ms = int((run.completed_at or 0.0) * 1000)
            shown.append(results.exit_frame(next_cursor, outcomes.encode(outcome), ms, encoding))
            dropped += log.lost.total
            next_cursor += 1
        more = outcome is None or next_cursor <= view.count
        return FramePage(shown, next_cursor, more, round(waited, 3), dropped)

    async def signal(self, run: Exec, number: int, *, tree: bool) -> None:
        """Send a signal. Raises `Conflict` when the exec has ended, or is no process."""
        await controls.signal(run, number, tree=tree)

    async def signal_all(self, wanted: Iterable[Exec], number: int, *, tree: bool) -> int:
        """Send a signal to execs; return how many of them it reached."""
        sent = [controls.signal(run, number, tree=tree) for run in wanted]
        reached = 0
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, errors.Conflict):
                raise result
            reached += result is None
        return reached

    async def kill(self, run: Exec) -> None:
        """Kill the whole tree of an exec and return when its end is recorded. Raises `Conflict` (it is no process)."""
        if run.outcome is not None:
            return
        try:
            await controls.signal(run, _SIGKILL, tree=True)
        except errors.Conflict as error:
            if error.fields.get("kind") != "process":
                raise
        except errors.Lost:
            pass  # its sandbox is dead, and whoever buries that ends it
        await run.end()

    async def stream(self, run: Exec, cursor: int) -> streams.Stream:
        """Return a reader of everything from a cursor on."""
        return streams.Stream(run, await self._log_of(run), self._store, cursor)

    def running(self, entry: entries.Entry, *, tag: str | None = None, pid: int | None = None) -> list[Exec]:
        """Return the execs that run and have this tag, or this process id."""
        box = self._boxes.get(entry.text_id)
        found = [] if box is None else [run for run in box.running.values() if not run.hidden]
        return [run for run in found if (tag is None or run.tag == tag) and (pid is None or run.pid == pid)]

    # ------------------------------------------------------------------------------------- logs of everything

    def visible(self, entry: entries.Entry) -> list[Exec]:
        """Return every exec of a sandbox that can be asked about, in no order."""
        box = self._boxes.get(entry.text_id)
        if box is None:
            return []
        self._settle(box, entry)
        return [run for run in box.everything() if not run.hidden]

    async def log(self, run: Exec) -> framelogs.FrameLog:
        """Return the log of an exec."""
        return await self._log_of(run)

    async def read(self, log: framelogs.FrameLog, work: Callable[[], T]) -> T:
        """Read a log, in a thread where that may take long."""
        return await self._store.read(log, work, inline_bytes=results.INLINE_BYTES)

    # ---------------------------------------------------------------------------------- lives of sandboxes

    def restore(self, known: Iterable[records.ExecRecord]) -> None:
        """Take in what the journal knows; before any sandbox is adopted."""
        for record in known:
            try:
                run = runs.restore(record)
            except msgspec.ValidationError as error:
                self._log.error("exec_unreadable", exec_id=record.exec_id, error=str(error))
                continue
            self._box_of(record.sandbox_id).add(run)

    async def adopt(self, entry: entries.Entry) -> None:
        """Take over the execs of a live sandbox that an earlier worker started."""
        box = self._box(entry)
        going_on = False
        for running in await self._sandbox(entry).execs():
            if self.claim is not None and self.claim(entry, running):
                going_on = True
            else:
                await self._adopt_one(box, running)
        for run in [run for run in box.running.values() if run.running is None]:
            log = await self._store.recover(run, box.budget) if _recorded(run) else None
            told = outcomes.decode_told(log.exit) if log is not None and log.exit is not None else None
            if log is not None and told is not None:
                self._watch.conclude_told(box, run, told, log.exit_ms)
            elif log is not None and going_on:
                self._watch.resume(box, run)
            else:
                self._watch.end(box, run, contract.ExecExit())

    async def _adopt_one(self, box: boxes.Box, running: contract.RunningExec) -> None:
        try:
            label = commands.decode(running.label)
        except errors.InvalidRequest as error:
            self._log.error("exec_unreadable", error=str(error))
            await self._watch.abandon(running, kill=False)
            return
        run = box.get(label.exec_id) or _from_label(box, label)
        if run.outcome is not None or label.hidden:
            await self._watch.abandon(running, kill=label.hidden)
            return
        log = await self._store.recover(run, box.budget)
        told = outcomes.decode_told(log.exit) if log.exit is not None else None
        if told is not None:
            self._watch.attach_told(box, run, running, told, log.exit_ms)
        else:
            self._watch.attach(box, run, running)
            if label.stdin_given and run.input is not None:
                # Nobody was told that it runs, and the rest of what it was to read is gone.
                await self._watch.kill(run)

    async def end(self, entry: entries.Entry) -> None:
        """End every exec of a sandbox that is dead; return when all of it is recorded."""
        box = self._boxes.get(entry.text_id)
        if box is None or self._closed:
            return
        box.entry = entry
        for run in list(box.running.values()):
            ended = run.running.ended if run.running is not None else None
            seen = ended.result() if ended is not None and ended.done() else contract.ExecExit()
            self._watch.end(box, run, seen)
        while box.running:
            await self.wait(next(iter(box.running.values())))

    async def forget(self, entry: entries.Entry) -> None:
        """Drop records and logs of a sandbox that can no longer be read."""
        box = self._boxes.pop(entry.text_id, None)
        if box is not None:
            await self._store.remove(box.everything())

    async def sweep(self, known: Iterable[str]) -> int:
        """Drop execs of sandboxes other than the `known` ids, and logs of nobody; return of how many. At start."""
        for sandbox_id in self._boxes.keys() - set(known):
            for run in self._boxes.pop(sandbox_id).everything():
                self._journal.drop_exec(run.id)
        names = {run.id for box in self._boxes.values() for run in box.everything()}
        return await self._store.sweep(names.__contains__)

    async def close(self) -> None:
        """Stop watching. Commands go on where their sandboxes do; what they print waits in their pipes."""
        self._closed = True
        running = [run for box in self._boxes.values() for run in box.running.values()]
        await asyncio.gather(*(self._watch.detach(run) for run in running))
        await self._watch.close()
        await self._store.close()

    # ---------------------------------------------------------------------------------------------- parts

    def _new(self, entry: entries.Entry, wanted: specs.ExecSpec) -> Exec:
        return Exec(
            ids.new_exec_id(),
            entry.text_id,
            commands.shown(wanted),
            self._clock.now(),
            runtime=wanted.runtime,
            timeout_ms=wanted.timeout_ms,
            tag=wanted.tag,
            background=wanted.background,
            tty=wanted.terminal is not None,
        )

    def _box(self, entry: entries.Entry) -> boxes.Box:
        box = self._box_of(entry.text_id)
        box.entry = entry
        return box

    def _box_of(self, sandbox_id: str) -> boxes.Box:
        box = self._boxes.get(sandbox_id)
        if box is None:
            box = self._boxes[sandbox_id] = boxes.Box(None, self._limits.sandbox_bytes, self._total)
        return box

    def _sandbox(self, entry: entries.Entry) -> contract.RunningSandbox:
        if entry.running is None or self._closed:
            raise errors.Conflict(f"cannot run a command: the sandbox is {entry.state.value}", state=entry.state.value)
        return entry.running

    def _settle(self, box: boxes.Box, entry: entries.Entry) -> None:
        """Call lost what ran when an earlier worker died, in a sandbox that did not survive it."""
        if box.entry is None:
            box.entry = entry
            for run in list(box.running.values()):
                self._watch.end(box, run, contract.ExecExit())

    async def _log_of(self, run: Exec) -> framelogs.FrameLog:
        log = run.log
        if log is None:  # it had no output, or ended before this worker started
            box = self._boxes.get(run.sandbox_id)
            budget = box.budget if box is not None else None
            log = await self._store.recover(run, budget) if run.logged else self._store.new(run, budget)
        return log


def _recorded(run: Exec) -> bool:
    """Tell whether an exec that runs is no process that we watch by its own label."""
    return run.context_id is not None or (run.became is not None and run.running is None)


def _label(run: Exec, *, stdin_given: bool) -> bytes:
    return commands.encode(
        commands.Label(
            v=commands.LABEL_VERSION,
            exec_id=run.id,
            command=run.command,
            started_at=run.started_at,
            runtime=run.runtime,
            timeout_ms=run.timeout_ms,
            hidden=run.hidden,
            tag=run.tag,
            background=run.background,
            tty=run.tty,
            stdin_given=stdin_given,
        )
    )


def _from_label(box: boxes.Box, label: commands.Label) -> Exec:
    return Exec(
        label.exec_id,
        box.entry.text_id if box.entry is not None else "",
        label.command,
        label.started_at,
        runtime=label.runtime,
        timeout_ms=label.timeout_ms,
        hidden=label.hidden,
        tag=label.tag,
        background=label.background,
        tty=label.tty,
    )


async def _news(run: Exec, log: framelogs.FrameLog, cursor: int, wait: float) -> float:
    """Return when there is a frame at `cursor`, the end, or `wait` seconds have passed; and the seconds waited."""
    loop = asyncio.get_running_loop()
    began = now = loop.time()
    while run.outcome is None and log.count <= cursor and now - began < wait:
        watcher: asyncio.Future[None] = loop.create_future()
        run.watchers.append(watcher)
        timer = loop.call_later(wait - (now - began), _wake, watcher)
        try:
            await watcher
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                run.watchers.remove(watcher)
        now = loop.time()
    return now - began


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
