"""Watches over commands that run, up to the moment when their end is recorded and the runtime may forget it.

An end is recorded in one order: output drained, exit written, waiters told, journal, and only when that is on disk the
runtime releases the exec. A worker that dies anywhere in between finds enough to do the rest again, with the same
result. It starts nothing and answers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Protocol

from traforo.domain import clocks, errors, states
from traforo.telemetry import logs, metrics
from traforo.worker import tasks
from traforo.worker.execs import boxes, inputs, outcomes, pumps, runs
from traforo.worker.journal import records
from traforo.worker.outputs import logstores
from traforo.worker.runtimes import contract

LOST_SECONDS = 0.5
"""How long after the loss of an exec the end of its sandbox may come that tells why."""
NOTE_SECONDS = 0.05
"""Age at which a command that still runs is journaled; most end before, and are journaled with their end."""
_SIGKILL = 9


class Journal(Protocol):
    """Where ends are written before the runtime may forget them; `traforo.worker.journal.journals.Journal` is one."""

    @property
    def full(self) -> bool:
        """Whether new work has to wait in `room`."""
        ...

    async def room(self) -> None:
        """Return when new work may come."""
        ...

    def put_exec(self, record: records.ExecRecord, then: Callable[[], None] | None = None) -> None:
        """Write an exec, later; `then` is called on the loop when it is safe."""
        ...

    def drop_exec(self, exec_id: str) -> None:
        """Forget an exec."""
        ...

    async def flush(self) -> None:
        """Return when everything so far is written."""
        ...


class Watch:
    """The watch over all execs of one worker. Belongs to one event loop."""

    def __init__(
        self,
        store: logstores.LogStore,
        *,
        clock: clocks.Clock,
        journal: Journal,
        metrics: metrics.WorkerMetrics,
    ) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self._durations = {end: metrics.worker_exec_duration_seconds.labels(result=end.value) for end in states.ExecEnd}
        self._tasks = tasks.Tasks()
        self._log = logs.get(__name__)
        self._closed = False

    def attach(self, box: boxes.Box, run: runs.Exec, running: contract.RunningExec) -> None:
        """Watch over a command that runs, or has just ended. `run.log` is there."""
        if run.log is None:
            raise errors.Internal("cannot watch an exec without a log")
        run.running = running
        run.pid = running.pid
        if running.stdin >= 0:
            run.input = inputs.Input(running)
        run.pump = pumps.Pump(
            run.log,
            running.stdout,
            running.stderr,
            clock=self._clock,
            executor=self._store.executor,
            on_output=run.notify,
        )
        box.add(run)
        if not running.ended.done():
            run.pump.start()
            self._set_deadline(run)
            if not run.hidden:
                run.noting = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._note, run)
        running.ended.add_done_callback(functools.partial(self._ended, box, run))

    async def give(self, run: runs.Exec, data: bytes, *, finish: bool) -> None:
        """Write the input of a command that has just started, and with `finish` tell its end.

        Returns when all of it is in the pipe; where the pipe cannot be made as large as that, the rest goes on behind.
        """
        given = run.input
        if given is None:
            return
        given.told = finish
        try:
            done = given.write_now(data)
        except BrokenPipeError:
            done = len(data)  # it reads none, and need not
        if done < len(data):
            self._tasks.spawn(self._give_rest(given, data[done:], finish=finish))
        elif finish:
            await given.finish()

    async def _give_rest(self, given: inputs.Input, data: bytes, *, finish: bool) -> None:
        with contextlib.suppress(errors.Conflict):  # it has ended, or reads no more
            await given.write(data)
        if finish:
            await given.finish()

    def begin(self, box: boxes.Box, run: runs.Exec) -> None:
        """Take in an exec that is no process: its output is fed, and its end is told by `conclude`."""
        box.add(run)
        run.noting = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._note, run)

    def resume(self, box: boxes.Box, run: runs.Exec) -> None:
        """Go on with an exec that is no process, and which an earlier worker took in."""
        box.add(run)

    def conclude(self, box: boxes.Box, run: runs.Exec, outcome: outcomes.Outcome) -> None:
        """Record the end of an exec that is no process. Without effect when that was done before."""
        _cancel_timers(run)
        if run.ending or run.outcome is not None:
            return
        run.ending = True
        self._finish(box, run, outcome)

    def attach_told(
        self, box: boxes.Box, run: runs.Exec, running: contract.RunningExec, told: outcomes.Told, ms: int
    ) -> None:
        """Record an end that an earlier worker told and could not journal. `ms`: Unix milliseconds of the end."""
        run.running, run.pid = running, running.pid
        box.add(run)
        pumps.close(running)
        self.conclude_told(box, run, told, ms)

    def conclude_told(self, box: boxes.Box, run: runs.Exec, told: outcomes.Told, ms: int) -> None:
        """As `attach_told`, for an exec that is no process."""
        run.duration_ms = told.duration_ms
        self._record(box, run, told.outcome, ms / 1000)

    def end(self, box: boxes.Box, run: runs.Exec, seen: contract.ExecExit) -> None:
        """Begin to record an end. Without effect when that was begun before."""
        _cancel_timers(run)
        if run.ending or run.outcome is not None:
            return
        run.ending = True
        if run.pump is not None:
            run.pump.stop(functools.partial(self._stopped, box, run, seen))
        else:
            self._stopped(box, run, seen)

    async def kill(self, run: runs.Exec) -> None:
        """Kill the whole tree of an exec, if it runs."""
        if run.running is not None:
            await self._kill(run.running)

    async def abandon(self, running: contract.RunningExec, *, kill: bool) -> None:
        """Let go of an exec whose end is known, or which nobody can ask for."""
        pumps.close(running)
        if kill:
            await self._kill(running)
        await self._release(running)

    def forget(self, run: runs.Exec) -> None:
        """Drop an ended exec and its log."""
        if not run.hidden:
            self._journal.drop_exec(run.id)
        if run.logged:
            self._tasks.spawn(self._store.remove([run]))

    async def detach(self, run: runs.Exec) -> None:
        """Stop watching without recording an end: the next worker will."""
        run.fail(errors.WorkerUnavailable("cannot wait any longer: this worker is stopping"))
        _cancel_timers(run)
        _close_input(run)
        pump = run.pump
        if pump is None:
            if run.log is not None and not run.ending:
                run.log.close()
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if run.ending:  # the last of its output is being moved; its end is recorded when that is done
            run.waiters.append(done)
            await done
            return
        run.pump, run.ending = None, True
        pump.stop(functools.partial(done.set_result, None))
        await done
        pump.close()
        if run.log is not None:
            run.log.close()

    async def close(self) -> None:
        """Wait for what was begun, and begin nothing more."""
        self._closed = True
        await self._tasks.drain()

    # ---------------------------------------------------------------------------------------------- timers

    def _note(self, run: runs.Exec) -> None:
        """Write down that a command runs, so that it is known to be lost if worker and sandbox die together."""
        self._journal.put_exec(run.record())

    def _set_deadline(self, run: runs.Exec) -> None:
        if run.timeout_ms is None:
            return
        left = run.timeout_ms / 1000
        if not run.began:  # an earlier worker started it
            left = max(0.0, run.started_at + left - self._clock.now())
        run.deadline = asyncio.get_running_loop().call_later(left, self._expire, run)

    def _expire(self, run: runs.Exec) -> None:
        if run.running is not None and not run.running.ended.done():
            run.killing = self._tasks.spawn(self._kill(run.running))

    async def _kill(self, running: contract.RunningExec) -> None:
        with contextlib.suppress(errors.NotFound):
            await running.signal(_SIGKILL, tree=True)

    # ------------------------------------------------------------------------------------------------ ends

    def _ended(self, box: boxes.Box, run: runs.Exec, future: asyncio.Future[contract.ExecExit]) -> None:
        seen = future.result()
        if seen.code is None and seen.signal is None and box.dead is None and not run.ending:
            # Most probably its sandbox is dying, and whoever buries that can tell why.
            _cancel_timers(run)
            run.deadline = asyncio.get_running_loop().call_later(LOST_SECONDS, self.end, box, run, seen)
        elif run.killing is not None and not run.killing.done():
            # That the deadline passed is told when the whole tree is dead.
            run.killing.add_done_callback(lambda _: self.end(box, run, seen))
        else:
            self.end(box, run, seen)

    def _stopped(self, box: boxes.Box, run: runs.Exec, seen: contract.ExecExit) -> None:
        """Record an end, now that no output is being moved any more."""
        if run.pump is not None:
            run.pump.drain()
            run.pump.close()
            run.pump = None
        self._finish(box, run, outcomes.decide(seen, expired=run.killing is not None, sandbox=box.dead))

    def _finish(self, box: boxes.Box, run: runs.Exec, outcome: outcomes.Outcome) -> None:
        ms = int(self._clock.now() * 1000)  # as the log has it, so that an end is told alike over a crash
        now = ms / 1000
        seconds = self._clock.monotonic() - run.began if run.began else max(0.0, now - run.started_at)
        self._durations[outcome.end].observe(seconds)
        if outcome.end is not states.ExecEnd.LOST:
            run.duration_ms = round(seconds * 1000, 3)
        self._write_exit(run, outcome, ms)
        self._record(box, run, outcome, now)

    def _write_exit(self, run: runs.Exec, outcome: outcomes.Outcome, ms: int) -> None:
        """Finish the log. One without output gets a file only for what nobody else could tell after a crash."""
        if run.log is None:
            return
        # An interpreter remembers no run once the next one has begun.
        alone = outcomes.told(outcome) or run.context_id is not None
        try:
            if alone or not run.log.empty:
                run.log.finish(outcomes.encode_told(outcome, run.duration_ms), ms)
        except OSError as error:
            self._log.error("exit_not_written", exec_id=run.id, sandbox_id=run.sandbox_id, error=str(error))

    def _record(self, box: boxes.Box, run: runs.Exec, outcome: outcomes.Outcome, completed_at: float) -> None:
        """Make an end known: to those who wait, to the journal, and then to the runtime."""
        run.outcome = outcome
        run.completed_at = completed_at
        if run.log is not None:
            run.log.finished = True
            written = run.log.written
            run.written = runs.Written(written.stdout, written.stderr, run.log.count, written.results)
            if run.log.empty and not run.log.dropped.total:
                run.log = None
        running, run.running = run.running, None
        _close_input(run)
        pushed = box.end(run)
        run.finish()
        release = functools.partial(self._release_later, running)
        if run.hidden:
            release()
        else:
            if box.entry is not None:
                box.entry.first_exec_done()
            self._journal.put_exec(run.record(), release)
        for old in pushed:
            self.forget(old)

    def _release_later(self, running: contract.RunningExec | None) -> None:
        if running is not None and not self._closed:
            self._tasks.spawn(self._release(running))

    async def _release(self, running: contract.RunningExec) -> None:
        try:
            await running.release()
        except errors.TraforoError as error:  # its sandbox is dead, and with it what there was to release
            self._log.debug("exec_not_released", error=str(error))


def _close_input(run: runs.Exec) -> None:
    if run.input is not None:
        run.input.close()
        run.input = None


def _cancel_timers(run: runs.Exec) -> None:
    for timer in (run.deadline, run.noting):
        if timer is not None:
            timer.cancel()
    run.deadline = run.noting = None
