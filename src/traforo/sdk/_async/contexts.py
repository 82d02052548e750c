"""Code contexts of a sandbox: interpreters that keep what was defined from one piece of code to the next."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

from traforo.sdk import answers, cells, errors, listeners, requests, results, transports
from traforo.sdk._async import calls, clients, edges, execs

RUN_TIMEOUT = 30.0
"""Seconds after which a run is interrupted, unless another limit is given."""
_TURN_SECONDS = 0.05
"""Between looks whether it is the turn of a run that is to be interrupted."""
Language = Literal["python", "node", "bash"]


class AsyncContext:
    """One interpreter, made by `AsyncContexts.create` or `AsyncContexts.get`. As a context manager it is deleted at the
    end.

    Example:
        ```python
        async with await AsyncSandbox.create() as sandbox:
            async with await sandbox.contexts.create("python") as context:
                await context.run("x = 6 * 7")
                print((await context.run("x")).text)
        ```
    """

    def __init__(self, client: clients.AsyncClient, place: requests.Place, context_id: str) -> None:
        self.id = context_id
        """`ctx_` and a ULID."""
        self._client = client
        self._place = place
        self._url = f"{place.url}/contexts/{requests.checked_id(context_id)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.delete()

    async def info(self) -> cells.ContextInfo:
        """Return what the server says about it now."""
        response = await self._client.call("GET", self._url, token=await self._token(), repeat=True)
        return cells.context(answers.document(response.content))

    async def run(
        self,
        code: str,
        *,
        timeout: float = RUN_TIMEOUT,
        env: Mapping[str, str] | None = None,
        on_stdout: edges.Listener = None,
        on_stderr: edges.Listener = None,
        on_result: edges.Listener = None,
        check: bool = False,
    ) -> cells.CodeResult:
        """Run a piece of code to its end and return what it came to. Runs of one context wait for each other.

        When the connection breaks meanwhile, the code is followed to its end, over a restart of its worker too. Whoever
        gives up the wait, by cancellation, Ctrl-C or a listener that raises, interrupts the code and keeps the context;
        code whose turn does not come within two seconds is run all the same.

        Args:
            code: At most 1 MiB.
            timeout: Seconds after which it is interrupted, and killed if that does not help.
            env: Added to the environment for this run.
            on_stdout: Called with each piece of text that it writes to stdout, as it comes.
            on_stderr: The same for stderr.
            on_result: Called with each value that it displays, as JSON text.
            check: Raise unless it comes to its end.

        Raises:
            CodeFailed: With `check`, it raised or was ended; `result` has everything.
            Conflict: The context is dead: `restart` makes a fresh one of it.
            ConnectionFailed: No server; or its answer was lost and the code could not be found again, or not within a
                minute. `hint` says how to come back to it: nothing is ever run a second time.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                async with await sandbox.contexts.create() as context:
                    result = await context.run("print('counting'); 1 / 0")
                    if result.error is not None:
                        print(result.stdout, result.error.name, result.error.value)
            ```
        """
        if on_stdout is None and on_stderr is None and on_result is None:
            body, limit = self._body(code, timeout, env, wait=True), timeout + transports.WAIT_MARGIN
        else:
            body, limit = self._body(code, timeout, env, wait=False), -1.0
        url = f"{self._url}/run"
        answer = await calls.waited(self._client, self._place, url, body, tag=None, limit=limit, stop=self._break)
        if isinstance(answer, execs.AsyncExec) or not body["wait"]:
            started = calls.handle(self._client, self._place, answer)
            result = await self._followed(started, on_stdout, on_stderr, on_result)
        else:
            result = cells.code_result(answer)
        return result.check() if check else result

    async def start(
        self, code: str, *, timeout: float = RUN_TIMEOUT, env: Mapping[str, str] | None = None
    ) -> execs.AsyncExec:
        """Start a piece of code and return a handle, as `AsyncSandbox.start` does for a command. What the code displays
        comes as frames of type `result`.
        """
        body = answers.document(await self._post("/run", self._body(code, timeout, env, wait=False), None))
        return execs.AsyncExec(self._client, self._place, answers.field(body, "exec_id", str))

    async def interrupt(self) -> None:
        """Interrupt what runs, as Ctrl-C does; what was defined stays."""
        await self._post("/interrupt", {}, None)

    async def restart(self) -> None:
        """Begin anew with a fresh interpreter under the same id."""
        await self._post("/restart", {}, RUN_TIMEOUT)

    async def delete(self) -> None:
        """End the interpreter and all that it started; one that is gone already is fine."""
        with contextlib.suppress(errors.NotFound):
            await self._client.call("DELETE", self._url, token=await self._token(), repeat=True)

    async def _followed(
        self,
        started: execs.AsyncExec,
        on_stdout: edges.Listener,
        on_stderr: edges.Listener,
        on_result: edges.Listener,
    ) -> cells.CodeResult:
        texts = {"stdout": (listeners.Text(), on_stdout), "stderr": (listeners.Text(), on_stderr)}
        shown: list[results.Frame] = []
        async with (
            calls.stopped_if_left(started, self._break),
            contextlib.aclosing(started.output()) as frames,
        ):
            async for frame in frames:
                if frame.type == "result":
                    shown.append(frame)
                    if on_result is not None:
                        await edges.told(on_result, frame.text)
                for kind, (text, listener) in texts.items():
                    piece = text.take(frame, kind)
                    if listener is not None and piece:
                        await edges.told(listener, piece)
        return cells.assembled(await started.result(), shown)

    async def _break(self, run: execs.AsyncExec, seconds: float) -> None:
        """Interrupt this run as soon as it is its turn: what the interpreter runs before that is somebody else's."""
        url = f"{self._place.url}/exec{requests.query_string({'status': 'running', 'limit': requests.MAX_PAGE})}"
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            response = await self._client.call("GET", url, token=await self._token(), timeout=left)
            known, _ = answers.execs(answers.document(response.content))
            waiting = sorted(item.exec_id for item in known if item.context_id == self.id)  # ids are in order of time
            if run.id not in waiting:
                return
            if run.id == waiting[0]:
                there = f"{self._url}/interrupt"
                await self._client.call("POST", there, token=await self._token(), body={}, timeout=left)
                return
            await edges.sleep(_TURN_SECONDS)

    def _body(self, code: str, timeout: float, env: Mapping[str, str] | None, *, wait: bool) -> dict[str, object]:
        limit = requests.milliseconds(timeout)
        return requests.given(code=code, timeout_ms=limit, env=env and dict(env), wait=wait)

    async def _post(self, route: str, body: Mapping[str, object], timeout: float | None) -> bytes:
        limit = -1.0 if timeout is None else timeout + transports.WAIT_MARGIN
        url = self._url + route
        return (await self._client.call("POST", url, token=await self._token(), body=body, timeout=limit)).content

    async def _token(self) -> str | None:
        return await self._client.credential(self._place)


class AsyncContexts:
    """The code contexts of one sandbox, as `sandbox.contexts`."""

    def __init__(self, client: clients.AsyncClient, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/contexts"

    async def create(
        self,
        language: Language = "python",
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        name: str | None = None,
    ) -> AsyncContext:
        """Start an interpreter.

        Args:
            language: What its code is written in; the image needs its interpreter.
            cwd: Absolute path; None is the user's home directory.
            env: Added to the sandbox's environment.
            user: Name or number; None is the image's default user.
            name: A name for people.

        Raises:
            StartFailed: No such interpreter in the image.
        """
        body = requests.given(runtime=language, cwd=cwd and os.fspath(cwd), env=env and dict(env), user=user, name=name)
        response = await self._client.call("POST", self._url, token=await self._token(), body=body)
        return self.get(cells.context(answers.document(response.content)).context_id)

    def get(self, context_id: str) -> AsyncContext:
        """Return a handle of a context that was made before, by anybody. Nothing is asked of the server."""
        return AsyncContext(self._client, self._place, context_id)

    async def list(self) -> tuple[cells.ContextInfo, ...]:
        """Return the contexts of the sandbox."""
        response = await self._client.call("GET", self._url, token=await self._token(), repeat=True)
        return tuple(cells.contexts(answers.document(response.content)))

    async def _token(self) -> str | None:
        return await self._client.credential(self._place)
