"""One code context: an interpreter that runs, the runs that wait for it, and what becomes of them.

Runs of one context are serialised, and each is an exec that is fed here and concluded here. What the interpreter says
is checked before it gets here and believed about itself alone: it can end its own runs, and nothing else. It neither
starts interpreters nor answers requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal as signals
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from traforo.domain import clocks, errors, states
from traforo.worker import tasks
from traforo.worker.execs import execs, outcomes
from traforo.worker.interpreters import allowances, channels, labels, languages, marks, messages, runs
from traforo.worker.outputs import frames
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

MAX_QUEUED = 100
"""Runs that wait in one context."""
GRACE_SECONDS = 2.0
"""How long code has after its deadline before its context is killed."""
TREE_SECONDS = 0.25
"""How long an interpreter has to break its code before the processes that it may be waiting for are interrupted too."""
ASK_SECONDS = 0.25
"""How long those have before the interpreter is asked whether the run is over."""
ASKED_SECONDS = 0.1
"""How long an interpreter that listens has before it gets a signal."""
DOUBT_SECONDS = 30.0
"""How long a prepared interpreter that was taken over may take to say that it is one: it may be importing."""
_LOST_SECONDS = 0.5
_HINT = "restart the context: POST /sandboxes/{sandbox_id}/contexts/{context_id}/restart"


class Context:
    """One context. Belongs to one event loop."""

    def __init__(
        self,
        entry: entries.Entry,
        label: labels.Label,
        language: languages.Language,
        runner: execs.Execs,
        background: tasks.Tasks,
        allowance: allowances.Allowance,
    ) -> None:
        self.entry = entry
        self.label = label
        self.language = language
        self.id = label.context_id
        self.running: contract.RunningExec | None = None
        self.gone = False
        """It was deleted; or its interpreter is a prepared one that nobody has asked for."""
        self.prepared = label.prepared
        self.doubtful = False
        """It was taken over as a prepared one and has not answered yet: it may have become a script."""
        self.changing = asyncio.Lock()
        """Orders restarts and deletion."""
        self.execution_count = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the interpreter has said that it is ready, or has ended."""
        self._execs = runner
        self._tasks = background
        self._allowance = allowance
        self._channel: channels.Channel | None = None
        self._current: runs.Run | None = None
        self._queue: deque[runs.Run] = deque()
        self._ending = False
        self._loop = asyncio.get_running_loop()

    # --------------------------------------------------------------------------------------------- reading

    @property
    def dead(self) -> bool:
        """Whether its interpreter has ended."""
        return self.running is None

    @property
    def status(self) -> str:
        """`idle`, `busy` or `dead`."""
        if self.dead:
            return "dead"
        return "busy" if self._current is not None or self._queue else "idle"

    def summary(self) -> dict[str, Any]:
        """Return what `schemas.CodeContext` describes."""
        label = self.label
        return {
            "context_id": self.id,
            "sandbox_id": self.entry.text_id,
            "runtime": label.runtime,
            "name": label.name,
            "status": self.status,
            "cwd": label.cwd,
            "user": label.user or self.entry.rootfs.user,
            "created_at": clocks.rfc3339(label.created_at),
            "execution_count": self.execution_count,
        }

    # -------------------------------------------------------------------------------------------- its life

    def attach(self, running: contract.RunningExec, label: labels.Label, *, adopted: bool = False) -> None:
        """Take over an interpreter that runs, a new one unless it is `adopted`."""
        self.label = label
        self.running = running
        self.execution_count = 0
        if self.ready.done():
            self.ready = self._loop.create_future()
        self._channel = channels.Channel(
            running,
            label.nonce.encode(),
            self._allowance,
            on_output=self._output,
            on_message=functools.partial(self._message, running),
        )
        if adopted:
            self.doubtful = label.prepared
            self.ready.set_result(None)
        else:
            self._channel.write(self.language.first(label.nonce.encode()))
            self._channel.start()
            running.ended.add_done_callback(functools.partial(self._ended, running))

    def resume(self, left: list[runs.Run]) -> None:
        """Go on with what an earlier worker had recorded, the oldest first, and hear what has become of it."""
        if self._channel is None or self.running is None:
            return
        self._queue.extend(left)
        self._resume_next()
        # An end is heard from here on: it is one of what was recorded.
        self.running.ended.add_done_callback(functools.partial(self._ended, self.running))
        if self._current is None:
            self._channel.write(self.language.again("0" * 26, 0))
        if self.doubtful:
            self._loop.call_later(DOUBT_SECONDS, self._doubt)
        self._channel.start()

    def _doubt(self) -> None:
        """End what was taken over as prepared and does not answer like it: a script that nobody knows of."""
        if self.doubtful and not self.dead:
            self._tasks.spawn(self.kill())

    def _resume_next(self) -> None:
        """Ask for the next run that an earlier worker may have sent."""
        if self._queue and self._queue[0].recalled and self._channel is not None and not self._ending:
            run = self._queue.popleft()
            self._begin(run)
            self._channel.write(self.language.again(run.id, run.seen))
        else:
            self._next()

    def claim(self, env: Mapping[bytes, bytes]) -> None:
        """Begin to use a prepared interpreter, with variables that it may have been started without."""
        self.prepared = False
        if self._channel is not None:
            self._channel.write(languages.claim(env))

    def warm(self, modules: Iterable[str]) -> None:
        """Have a prepared interpreter import modules; it is `ready` when that is done."""
        if self._channel is not None and self.ready.done():
            self.ready = self._loop.create_future()
            self._channel.write(languages.warm(modules))

    def become(self, pieces: Iterable[bytes]) -> contract.RunningExec | None:
        """Turn a prepared interpreter into a script: send what asks for it, and give its process away.

        None, and nothing has happened, where it is not ready or that does not go at once.
        """
        if self._channel is None or not self.ready.done() or not self._channel.send_at_once(pieces):
            return None
        return self.give_away()

    def give_away(self) -> contract.RunningExec | None:
        """Let go of the process, whose pipes are its own again; None where it has ended."""
        running, channel = self.running, self._channel
        if running is not None and channel is not None:
            channel.give_back(running)
        self.running = self._channel = None
        return running

    async def kill(self) -> None:
        """End the interpreter and everything it started; return when that is done and recorded."""
        running = self.running
        if running is not None:
            with contextlib.suppress(errors.NotFound):
                await running.signal(signals.SIGKILL, tree=True)
            await asyncio.shield(running.ended)
            self._over(running)
        while self._queue:
            self._conclude(self._queue.popleft(), outcomes.LOST)

    def detach(self) -> None:
        """Leave the interpreter to the next worker."""
        if self._current is not None and self._current.deadline is not None:
            self._current.deadline.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.running = None
        self._be_ready()

    # ------------------------------------------------------------------------------------------------ runs

    def reserve(self, count: int) -> None:
        """Take room for a run that is asked in `count` bytes. Raises `Conflict` when it is dead, `RateLimited`."""
        if self.dead:
            raise errors.Conflict(
                "cannot run code: the interpreter of this context has ended", kind="context", id=self.id, hint=_HINT
            )
        if len(self._queue) >= MAX_QUEUED:
            raise errors.RateLimited(
                f"cannot run code: {MAX_QUEUED} runs wait in this context", limit=MAX_QUEUED, hint="wait for some"
            )
        if not self._allowance.queue(count):
            limit = allowances.MAX_WAITING_BYTES
            raise errors.RateLimited(
                f"cannot run code: {limit} bytes of it wait in this sandbox", limit=limit, hint="wait for some"
            )

    def unreserve(self, count: int) -> None:
        """Give back what `reserve` took and nobody used."""
        self._allowance.waiting -= count

    def put(self, run: runs.Run) -> None:
        """Run code when its turn comes; there is room for it by `reserve`."""
        run.hold = self.entry.activity.hold()
        self._queue.append(run)
        self._next()

    async def interrupt(self) -> None:
        """Break the code that runs, as Ctrl-C does. Without effect when none runs. Raises `Conflict` when dead."""
        if self.dead:
            raise errors.Conflict("cannot interrupt: the interpreter of this context has ended", hint=_HINT)
        run = self._current
        if run is not None:
            self._tasks.spawn(self._break(run))

    def _next(self) -> None:
        if self._current is None and self._queue and self._channel is not None and not self._ending:
            run = self._queue.popleft()
            self._begin(run)
            self._channel.write(self.language.run(run.id, run.code, run.env))

    def _begin(self, run: runs.Run) -> None:
        self._current = run
        if run.timeout_ms is not None:
            run.deadline = self._loop.call_later(run.timeout_ms / 1000, self._expire, run)

    def _expire(self, run: runs.Run) -> None:
        run.expired = True
        self._tasks.spawn(self._stop(run))

    async def _stop(self, run: runs.Run) -> None:
        """Break code whose deadline has passed, or else kill its context."""
        self._tasks.spawn(self._break(run))
        await asyncio.wait([asyncio.ensure_future(run.exec.end())], timeout=GRACE_SECONDS)
        running = self.running
        if run is self._current and running is not None:
            with contextlib.suppress(errors.NotFound):
                await running.signal(signals.SIGKILL, tree=True)

    async def _break(self, run: runs.Run) -> None:
        """Interrupt the code of a run, by asking where that can do, then by signals."""
        await asyncio.wait([self.ready])  # a signal ends an interpreter that is just starting, and code has not begun
        if self.language.interrupt is not None and self._channel is not None:
            self._channel.write(self.language.interrupt(run.id))
            await asyncio.sleep(ASKED_SECONDS)
        if run is self._current:
            await self._signal(tree=False)
            await self._insist(run)

    async def _insist(self, run: runs.Run) -> None:
        """Interrupt what the interpreter may be waiting for, and ask it whether the run is over."""
        await asyncio.sleep(TREE_SECONDS)
        if run is self._current:
            await self._signal(tree=True)
            await asyncio.sleep(ASK_SECONDS)
        if run is self._current and self._channel is not None:
            self._channel.write(self.language.again(run.id, run.seen))

    async def _signal(self, *, tree: bool) -> None:
        running = self.running
        if running is not None:
            with contextlib.suppress(errors.NotFound):
                await running.signal(signals.SIGINT, tree=tree)

    # -------------------------------------------------------------------------------------- what it says

    def _output(self, kind: frames.Kind, data: bytes) -> None:
        if self._current is not None:
            self._execs.feed(self._current.exec, kind, data)

    def _message(self, running: contract.RunningExec, message: marks.Message) -> None:
        if running is not self.running:
            return
        run = self._current
        said = messages.read(message, (run.id, run.seen) if run is not None else ("", 0))
        match said:
            case messages.Hello():
                self._be_ready()
            case messages.Result() if run is not None and said.run == run.id:
                if run.take(said):
                    self._execs.feed(run.exec, frames.Kind.RESULT, said.data)
            case messages.Done() if run is not None and said.run == run.id:
                self._done(run, said)
            case messages.Unknown():
                self._unknown(run, said)

    def _done(self, run: runs.Run, said: messages.Done) -> None:
        self.execution_count = run.execution_count = said.runs
        if said.results > run.seen and run.tries and self._channel is not None:
            run.tries -= 1  # some were lost with an earlier worker
            self._channel.write(self.language.again(run.id, run.seen))
            return
        if self._channel is not None:
            self._channel.drain_errors()
        if run.expired:
            outcome = outcomes.Outcome(states.ExecEnd.TIMED_OUT, outcomes.TIMED_OUT_CODE, None)
        else:
            outcome = outcomes.Outcome(states.ExecEnd.EXITED, said.exit_code, None)
        self._finish(run, outcome)

    def _unknown(self, run: runs.Run | None, said: messages.Unknown) -> None:
        self.execution_count = said.runs
        self.doubtful = False
        if self.prepared and said.claimed:
            self.prepared = False
        if run is not None and run.recalled:  # recorded by an earlier worker, which died before it could send it
            self._finish(run, outcomes.LOST)

    def _finish(self, run: runs.Run, outcome: outcomes.Outcome) -> None:
        self._conclude(run, outcome)
        self._current = None
        self._resume_next()

    def _conclude(self, run: runs.Run, outcome: outcomes.Outcome) -> None:
        if run.deadline is not None:
            run.deadline.cancel()
        self._execs.conclude(run.exec, outcome)
        if not run.recalled:
            self._allowance.waiting -= run.size
        if run.hold is not None:
            run.hold.release()

    def _be_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    # ------------------------------------------------------------------------------------------- its end

    def _ended(self, running: contract.RunningExec, future: asyncio.Future[contract.ExecExit]) -> None:
        seen = future.result()
        if seen.code is None and seen.signal is None:  # most probably the sandbox is dying, and its burial tells why
            self._loop.call_later(_LOST_SECONDS, self._over, running)
        else:
            self._over(running)

    def _over(self, running: contract.RunningExec) -> None:
        """Record what the end of the interpreter means for its runs. Without effect the second time."""
        if running is not self.running or not running.ended.done():
            return
        self._ending = True
        if self._channel is not None:
            self._channel.drain()
            self._channel.close()
        self.running = self._channel = None
        self._ending = False
        self._be_ready()
        run = self._current
        if run is not None:
            seen = running.ended.result()
            self._current = None
            outcome = outcomes.decide(seen, expired=run.expired, sandbox=self.entry.reason)
            if run.expired and seen.signal == signals.SIGINT:  # it did not catch what was to break its code
                outcome = outcomes.Outcome(states.ExecEnd.TIMED_OUT, outcomes.TIMED_OUT_CODE, seen.signal)
            self._conclude(run, outcome)
        while self._queue:
            self._conclude(self._queue.popleft(), outcomes.LOST)
        self._tasks.spawn(self._release(running))
        if not self.gone and self.entry.live and not self.changing.locked():
            self.entry.happenings.tell(states.Happening.CONTEXT_DIED, context_id=self.id)

    async def _release(self, running: contract.RunningExec) -> None:
        with contextlib.suppress(errors.TraforoError):  # its sandbox is dead, and with it what there was to release
            await running.release()
