"""The sandbox as a caller holds it: create, connect, list; run commands and code; renew, delete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from traforo.sdk import answers, errors, observations, requests, results, transports
from traforo.sdk._async import calls, clients, contexts, edges, execs, files, histories, ports, terminals

CODE_TIMEOUT = 30.0
"""Seconds after which `run_code` stops the code, unless another limit is given."""


class AsyncSandbox:
    """A running sandbox. Made by `create` or `connect`; as a context manager it is deleted at the end.

    Example:
        ```python
        async with await AsyncSandbox.create(ttl_seconds=300) as sandbox:
            result = await sandbox.exec(["echo", "hello"])
            print(result.exit_code, result.stdout)
        ```
    """

    def __init__(
        self,
        client: clients.AsyncClient,
        place: requests.Place,
        sandbox_id: str,
        *,
        owns_client: bool,
        start_type: str = "",
        timings_ms: Mapping[str, float] | None = None,
    ) -> None:
        """Not called directly: see `create` and `connect`."""
        self.id = sandbox_id
        """The sandbox's id, `sbx_…`."""
        self.start_type = start_type
        """`cold`, `warm`, `restored` or `forked`; empty after `connect`."""
        self.timings_ms: Mapping[str, float] = dict(timings_ms or {})
        """Milliseconds by phase: `accepted_to_admitted`, `admitted_to_ready`, `total`; empty after `connect`."""
        self.files = files.AsyncFiles(client, place)
        """Its files."""
        self.terminals = terminals.AsyncTerminals(client, place)
        """Its terminals: commands that somebody types to."""
        self.contexts = contexts.AsyncContexts(client, place)
        """Its code contexts: interpreters that keep what was defined."""
        self.ports = ports.AsyncPorts(client, place)
        """Its ports, as they are reached from outside."""
        self._client = client
        self._place = place
        self._owns_client = owns_client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @property
    def token(self) -> str | None:
        """Opens this sandbox and no other; None where the server asks for no credential. Keep it to connect again."""
        return self._place.token

    @property
    def connect_url(self) -> str:
        """URL of the worker that has this sandbox; every call after the first goes there."""
        return requests.origin(self._place.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.delete()
        except errors.TraforoError as problem:
            if error is None:
                raise
            error.add_note(f"and sandbox {self.id} was left to expire: {problem}")

    @classmethod
    async def create(
        cls,
        image: str | None = None,
        *,
        cpu: float | None = None,
        memory_mib: int | None = None,
        disk_mib: int | None = None,
        disk_kind: Literal["tmpfs", "disk"] | None = None,
        pids: int | None = None,
        ttl_seconds: float | None = None,
        idle_seconds: float | None = None,
        on_expiry: Literal["kill"] | None = None,
        prepare: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        name: str | None = None,
        virtualization: str | None = None,
        hardware_sku: str | None = None,
        url: str | None = None,
        token: edges.TokenSource = None,
        client: clients.AsyncClient | None = None,
    ) -> Self:
        """Create a sandbox; when this returns, a command can start in it. What is None is left to the server.

        Args:
            image: Image reference; default `host`, the worker's own file system below a private layer.
            cpu: Processors, 0.01 and up; default 1.
            memory_mib: MiB of memory, the files of a tmpfs disk included.
            disk_mib: MiB of the writable layer.
            disk_kind: Where that layer lives: in memory or on the worker's disk; default `tmpfs`.
            pids: Most processes and threads at once.
            ttl_seconds: Seconds after which the sandbox ends by itself, unless renewed; default 1800.
            idle_seconds: Seconds without activity after which it ends before that; 5 and up, default never.
            on_expiry: What happens at that time; default `kill`.
            prepare: Interpreters to have ready for the first code context, such as `["python"]`.
            env: Environment of each command.
            metadata: Text to find it by, for your own use.
            name: A name for people.
            virtualization: Kind of isolation; default `container`.
            hardware_sku: Kind of machine.
            url: Of the server; default TRAFORO_URL, else `http://127.0.0.1:8080`.
            token: A JWT, or a function that mints one (`prod` takes each for one create); default TRAFORO_TOKEN.
            client: A client to share connections with, in place of `url` and `token`.

        Raises:
            NoCapacity, WorkerUnavailable: No room now; nothing was created.
            InvalidRequest, NotFound: A value out of range, an unknown image.
            Unauthenticated: No token, or one that does not hold.
            ConnectionFailed: No server, or its answer was lost: then a sandbox may exist until it expires.

        Example:
            ```python
            sandbox = await AsyncSandbox.create(cpu=0.5, memory_mib=256, env={"GREETING": "hello"})
            try:
                print((await sandbox.exec("echo $GREETING")).stdout)
                print(sandbox.start_type, sandbox.timings_ms["total"])
            finally:
                await sandbox.delete()
            ```
        """
        body = requests.given(
            image=image,
            cpu=cpu,
            memory_mib=memory_mib,
            disk_mib=disk_mib,
            disk_kind=disk_kind,
            pids=pids,
            ttl_seconds=ttl_seconds,
            idle_seconds=idle_seconds,
            on_expiry=on_expiry,
            prepare=None if prepare is None else [*prepare],
            env=env and dict(env),
            metadata=metadata and dict(metadata),
            name=name,
            virtualization=virtualization,
            hardware_sku=hardware_sku,
        )
        connection = client or clients.AsyncClient(url, token=token)
        try:
            made = await connection.create(body)
            place = requests.sandbox_place(made.connect_url, made.info.sandbox_id, made.token)
        except BaseException:
            if client is None:
                await connection.close()
            raise
        return cls(
            connection,
            place,
            made.info.sandbox_id,
            owns_client=client is None,
            start_type=made.start_type,
            timings_ms=made.timings_ms,
        )

    @classmethod
    async def connect(
        cls,
        sandbox_id: str,
        *,
        sandbox_token: str | None = None,
        url: str | None = None,
        token: edges.TokenSource = None,
        client: clients.AsyncClient | None = None,
    ) -> Self:
        """Return a sandbox that exists.

        Args:
            sandbox_id: Its id, in either spelling.
            sandbox_token: The `token` it had when it was created; without it your own token opens it.
            url: As for `create`.
            token: As for `create`; any token that has not expired.
            client: As for `create`.

        Raises:
            MalformedId, NotFound: No id, no such sandbox.
            Forbidden, Unauthenticated: Somebody else's; no token that holds.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                same = await AsyncSandbox.connect(sandbox.id)
                info = await same.info()
                print(info.state, info.expires_at)
                await same.close()
            ```
        """
        connection = client or clients.AsyncClient(url, token=token)
        try:
            place, info = await connection.locate(sandbox_id, sandbox_token)
        except BaseException:
            if client is None:
                await connection.close()
            raise
        return cls(connection, place, info.sandbox_id, owns_client=client is None)

    @classmethod
    async def list(
        cls,
        *,
        state: str | None = None,
        limit: int | None = None,
        url: str | None = None,
        token: edges.TokenSource = None,
        client: clients.AsyncClient | None = None,
    ) -> results.SandboxList:
        """Return your sandboxes, newest first. Its `missing_workers` are those that did not answer.

        Args:
            state: Only those in this state, `running` for instance.
            limit: At most so many.
            url: As for `create`.
            token: As for `create`.
            client: As for `create`.

        Example:
            ```python
            for info in await AsyncSandbox.list(state="running"):
                print(info.sandbox_id, info.image, info.expires_at)
            ```
        """
        connection = client or clients.AsyncClient(url, token=token)
        try:
            return await connection.list(state, limit)
        finally:
            if client is None:
                await connection.close()

    async def info(self) -> results.SandboxInfo:
        """Return what the worker says about it now. Raises `NotFound` an hour after its end."""
        response = await self._client.call("GET", self._place.url, token=await self._token(), repeat=True)
        return answers.sandbox(answers.document(response.content))

    async def renew(self, ttl_seconds: float | None = None, *, idle_seconds: float | None = None) -> datetime:
        """Let it live for `ttl_seconds` from now on, shorter or longer than before. Returns when it expires.

        Args:
            ttl_seconds: Seconds from now; None leaves its end as it is.
            idle_seconds: Another limit for the time without activity, 0 for none; None leaves it as it is.

        Raises:
            InvalidRequest: Neither was given, or more than the server allows.
            Conflict: It has ended.
        """
        limits = {"ttl_seconds": ttl_seconds, "idle_seconds": idle_seconds}
        query = requests.query_string({name: f"{limit:.15g}" for name, limit in limits.items() if limit is not None})
        url = f"{self._place.url}/lease{query}"
        response = await self._client.call("PATCH", url, token=await self._token(), repeat=True)
        body = answers.document(response.content)
        self._place.token = body.get("token") or self._place.token
        return answers.known_moment(body, "expires_at")

    async def delete(self) -> None:
        """Kill everything in it and free what it held; returns when it is dead. One that is gone already is fine."""
        try:
            await self._client.call("DELETE", self._place.url, token=await self._token(), repeat=True)
        except errors.NotFound:
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        """Close connections and leave the sandbox running. A later call opens new ones."""
        if self._owns_client:
            await self._client.close()

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: str | bytes | None = None,
        on_stdout: edges.Listener = None,
        on_stderr: edges.Listener = None,
        tag: str | None = None,
        check: bool = False,
    ) -> results.ExecResult:
        """Run a command to its end and return its result.

        Its connection may break: then the command is followed to its end over another one, over a restart of its worker
        too, and the result comes all the same. It is one request, by whose tag it is found; what has no `tag` gets one
        for that, `call-…`. A tag of the caller's is no proof, as others may have it: such a command is followed by its
        id, which takes two requests more, and only the one that starts it must not break.

        Whoever gives up the wait kills the command and all that it started: a task that is cancelled, by a time limit
        for instance, Ctrl-C, a listener that raises. It is tried for two seconds or so, and hides nothing. One with a
        tag of the caller's has to have been started by then. To let a command run on, `start` it.

        Args:
            command: A string for `/bin/sh -c`, or a sequence of arguments that no shell sees.
            env: Added to the sandbox's environment, and stronger than it.
            cwd: Absolute path; None is the user's home directory.
            user: Name or number; None is the image's default user.
            timeout: Seconds after which the command and all it started are killed; then `end` is `timed_out`.
            stdin: What it reads as its input; None is none.
            on_stdout: Called with each piece of text that it writes to stdout, as it comes.
            on_stderr: The same for stderr.
            tag: A name to find it by, of letters, digits and `._-`; several may have the same.
            check: Raise unless it exits with 0.

        Raises:
            StartFailed: No such command, directory or permission: `fields` has `stage` and `errno_name`.
            CommandFailed: With `check`, it did not exit with 0; `result` has everything.
            ConnectionFailed: No server; or its answer was lost and the command could not be found again, or not within
                a minute. It may run on, and `hint` says how to come back to it: nothing is ever run a second time.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                result = await sandbox.exec("echo out; echo err >&2; exit 7")
                print(result.exit_code, result.stdout.strip(), result.stderr.strip())
                await sandbox.exec("for n in 1 2 3; do echo $n; sleep 0.1; done", on_stdout=print)
                print((await sandbox.exec("tr a-z A-Z", stdin="hello")).stdout)
            ```
        """
        given = requests.stdin(stdin)
        body = requests.starting(command, env, cwd, user, timeout) | given
        if tag is None and on_stdout is None and on_stderr is None and (stdin is None or given):
            limit = None if timeout is None else timeout + transports.WAIT_MARGIN
            url = f"{self._place.url}/exec"
            result = await calls.result(self._client, self._place, url, body | {"wait": True}, tag=None, limit=limit)
        else:
            feed = stdin if stdin is not None and not given else None
            body |= requests.given(wait=False, stdin_open=None if feed is None else True)
            started = await calls.begun(self._client, self._place, body, tag)
            if feed is not None:
                await calls.fed(started, feed, close=True)
            result = await calls.heard(started, on_stdout, on_stderr)
        return result.check() if check else result

    async def start(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: str | bytes | None = None,
        stdin_open: bool = False,
        background: bool = False,
        tag: str | None = None,
    ) -> execs.AsyncExec:
        """Start a command and return a handle, with the arguments and errors of `exec`.

        It runs to its end, whatever becomes of those who wait for it; `kill` of the handle ends it.

        Args:
            command: As for `exec`.
            env: As for `exec`.
            cwd: As for `exec`.
            user: As for `exec`.
            timeout: As for `exec`.
            stdin: As for `exec`.
            stdin_open: Keep its input open, for `write` and `close_stdin` of the handle.
            background: It does not count as activity: the sandbox may end for idleness while it runs.
            tag: As for `exec`; `list_execs(tag=...)` finds it.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                exec = await sandbox.start(["sh", "-c", "echo begun; sleep 60"])
                await exec.kill()
                print((await exec.wait()).end)
            ```
        """
        given = requests.stdin(stdin)
        feed = stdin if stdin is not None and not given else None
        body = requests.starting(command, env, cwd, user, timeout) | {"wait": False} | given
        is_open = stdin_open or feed is not None
        body |= requests.given(tag=tag, background=background or None, stdin_open=is_open or None)
        response = await self._client.call("POST", f"{self._place.url}/exec", token=await self._token(), body=body)
        exec_id = answers.field(answers.document(response.content), "exec_id", str)
        started = execs.AsyncExec(self._client, self._place, exec_id)
        if feed is not None:
            await calls.fed(started, feed, close=not stdin_open)
        return started

    async def list_execs(
        self,
        limit: int | None = None,
        *,
        tag: str | None = None,
        status: Literal["running", "exited"] | None = None,
        pid: int | None = None,
    ) -> tuple[results.ExecResult, ...]:
        """Return the sandbox's execs without their output, at most `limit` of them, all or those asked for."""
        wanted = {"tag": tag, "status": status, "pid": pid}
        found: tuple[results.ExecResult, ...] = ()
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = requests.page_size(limit, len(found))
            query = requests.query_string({"limit": size, "cursor": cursor, **wanted})
            url = f"{self._place.url}/exec{query}"
            response = await self._client.call("GET", url, token=await self._token(), repeat=True)
            page, cursor = answers.execs(answers.document(response.content))
            found += tuple(page)
            if cursor is None or not page:
                break
        return found[:limit]

    def get_exec(self, exec_id: str) -> execs.AsyncExec:
        """Return a handle of an exec that was started before, by anybody. Nothing is asked of the server."""
        return execs.AsyncExec(self._client, self._place, exec_id)

    async def signal(
        self,
        signal: str | int = "TERM",
        *,
        tag: str | None = None,
        pid: int | None = None,
        exec_id: str | None = None,
        tree: bool = True,
    ) -> int:
        """Send a signal to the commands that have a tag, to a process, or to one command. Returns how many got it.

        Args:
            signal: Name without SIG, or number.
            tag: Every running command that was started with it.
            pid: A process, as seen inside the sandbox.
            exec_id: One command.
            tree: To every process that descends from it as well.
        """
        body = requests.given(signal=signal, tree=tree, tag=tag, pid=pid, exec_id=exec_id)
        url = f"{self._place.url}/signal"
        response = await self._client.call("POST", url, token=await self._token(), body=body)
        return int(answers.field(answers.document(response.content), "signalled", int))

    async def run_code(
        self,
        code: str,
        language: Literal["python", "node", "bash"] = "python",
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        timeout: float = CODE_TIMEOUT,
        tag: str | None = None,
        check: bool = False,
    ) -> results.ExecResult:
        """Run a piece of code to its end and return its result. Nothing is remembered: `contexts` are for that.

        When the connection breaks, or the wait is given up, it is followed or killed as a command of `exec` is; with a
        `tag` of the caller's it is not.

        Args:
            code: At most 1 MiB.
            language: What it is written in; the image needs its interpreter.
            env: As for `exec`.
            cwd: As for `exec`.
            user: As for `exec`.
            timeout: Seconds after which it is killed; then `end` is `timed_out` and `exit_code` 124.
            tag: A name to find it by.
            check: Raise unless it exits with 0.

        Raises:
            SyntaxRejected: It does not compile; `fields` has the compiler's words as `stderr`. Where the connection
                broke meanwhile, its result tells instead.
            StartFailed: No such interpreter in the image.
            CommandFailed: With `check`, it did not exit with 0.
            ConnectionFailed: No server; or its answer was lost and the code cannot be found again: `hint` says more.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                result = await sandbox.run_code("print(6 * 7)", check=True)
                print(result.stdout)
            ```
        """
        body = {"code": code, "runtime": language, **requests.surroundings(env, cwd, user, timeout), "wait": True}
        url, limit = f"{self._place.url}/exec/code", timeout + transports.WAIT_MARGIN
        result = await calls.result(self._client, self._place, url, body, tag=tag, limit=limit)
        return result.check() if check else result

    async def metrics(self, *, series: bool = False, since: datetime | None = None) -> observations.Metrics:
        """Return what it uses now, and with `series` what it used in the last hour or since a time.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                metrics = await sandbox.metrics()
                if metrics.now is not None:
                    print(metrics.now.memory_bytes, metrics.now.memory_limit_bytes, metrics.now.pids)
            ```
        """
        moment = None if since is None else f"{since.timestamp():.3f}"
        query = requests.query_string({"series": "true" if series or since else None, "since": moment})
        url = f"{self._place.url}/metrics{query}"
        response = await self._client.call("GET", url, token=await self._token(), repeat=True)
        return observations.metrics(answers.document(response.content))

    async def events(
        self, *, follow: bool = False, cursor: int | str | None = None
    ) -> AsyncGenerator[observations.Event]:
        """Give out what happened to it, oldest first.

        Args:
            follow: Go on with what happens, until it has ended.
            cursor: Begin after the event with this cursor.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                await sandbox.exec(["true"])
                async for event in sandbox.events():
                    print(event.ts, event.type, event.facts)
            ```
        """
        history = histories.History(self._client, self._place)
        async with contextlib.aclosing(history.events(cursor, follow=follow)) as found:
            async for event in found:
                yield event

    async def logs(
        self,
        *,
        follow: bool = False,
        cursor: int | str | None = None,
        stream: Literal["stdout", "stderr", "events"] | None = None,
    ) -> AsyncGenerator[observations.LogEntry]:
        """Give out the output of all its commands and its events in the order of time.

        Args:
            follow: Go on with what comes, until it has ended; a connection that broke is made anew.
            cursor: Begin after the entry with this cursor.
            stream: Only this kind.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                await sandbox.exec("echo hello")
                async for entry in sandbox.logs(stream="stdout"):
                    print(entry.ts, entry.exec_id, entry.data)
            ```
        """
        history = histories.History(self._client, self._place)
        async with contextlib.aclosing(history.logs(cursor, stream, follow=follow)) as found:
            async for entry in found:
                yield entry

    async def _token(self) -> str | None:
        return await self._client.credential(self._place)
