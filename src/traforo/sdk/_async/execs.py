"""A command that was started: read its output, write its input, wait for it, signal it. Reading goes on where a
connection broke; input is never sent twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from traforo.sdk import answers, errors, messages, pauses, requests, results, transports
from traforo.sdk._async import clients, edges

if TYPE_CHECKING:
    from traforo.sdk._async import sockets

POLL_SECONDS = 30.0
"""How long the server holds a request for frames that are not there yet; it allows up to 60."""
_PAGE = 1000
_WAYS = ("socket", "lines", "pages")
"""How output can be read, the best first; one that a server does not know is not tried again."""


class AsyncExec:
    """A handle of one exec, made by `AsyncSandbox.start` or `AsyncSandbox.get_exec`.

    Example:
        ```python
        async with await AsyncSandbox.create() as sandbox:
            exec = await sandbox.start("for i in 1 2 3; do echo $i; sleep 0.1; done")
            async for frame in exec.output():
                print(frame.type, frame.data)
            result = await exec.wait()
            print(result.exit_code)
        ```
    """

    def __init__(self, client: clients.AsyncClient, place: requests.Place, exec_id: str) -> None:
        self.id = exec_id
        """`exec_` and a ULID."""
        self._client = client
        self._place = place
        self._url = f"{place.url}/exec/{requests.checked_id(exec_id)}"
        self._position = messages.Position()
        self._left = False
        self._way = _WAYS[0] if client.direct else _WAYS[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @property
    def next_cursor(self) -> int:
        """Where reading goes on, after the last frame that was given out."""
        return self._position.next_cursor

    @property
    def dropped(self) -> int:
        """Bytes of output that were gone from the log before they were read."""
        return self._position.dropped

    async def result(self) -> results.ExecResult:
        """Return what is known of it now, output included."""
        response = await self._client.call("GET", self._url, token=await self._token(), repeat=True)
        return answers.exec_result(answers.document(response.content))

    async def wait(self, timeout: float | None = None) -> results.ExecResult:
        """Wait until it ends and return its result.

        Args:
            timeout: Seconds to wait at most; the exec goes on when they are over. None waits for ever.

        Raises:
            RequestTimedOut: It still runs after `timeout`.
            ConnectionFailed: The server could not be reached for a minute. Calling again goes on.
        """
        if not self._position.ended:
            deadline = None if timeout is None else time.monotonic() + timeout
            position = messages.Position(self._position.next_cursor)
            async for _ in self._resumed(position, "pages", deadline):
                pass
            self._position.ended = True
        return await self.result()

    async def output(self, cursor: int | None = None) -> AsyncGenerator[results.Frame]:
        """Read its output as it comes, piece by piece, the last one being of type `exit`.

        Over a WebSocket where there is one, else over a streamed answer, else by asking again and again; whichever it
        is, a connection that broke is made anew, nothing is lost and nothing comes twice.

        Args:
            cursor: Where to begin: 0 is the start, None where this handle was. Frames of the past can be read again for
                as long as the server keeps them.

        Raises:
            ConnectionFailed: The server could not be reached for a minute. Calling again goes on at the same place.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                exec = await sandbox.start("echo out; echo err >&2")
                async for frame in exec.output():
                    print(frame.type, frame.text)
            ```
        """
        async with contextlib.aclosing(self._read(cursor, self._way)) as frames:
            async for frame in frames:
                yield frame

    async def frames(self, cursor: int | None = None) -> AsyncIterator[results.Frame]:
        """Read its output as `output` does, by plain requests that wait: what passes through every proxy."""
        async with contextlib.aclosing(self._read(cursor, "pages")) as frames:
            async for frame in frames:
                yield frame

    async def written(self, cursor: int = 0) -> AsyncGenerator[results.Frame]:
        """Read what it has written so far, from a cursor on, without waiting for more."""
        position = messages.Position(cursor)
        while not position.ended:
            page = await self._page(position.next_cursor, None, wait=0.0)
            self._position.dropped += page.dropped
            for frame in page.frames:
                position.take(messages.Piece(frame, frame.cursor + 1))
                yield frame
            position.take(messages.Piece(None, page.next_cursor))
            if not page.frames:
                return

    async def write(self, data: str | bytes | AsyncIterable[bytes]) -> None:
        """Write to its standard input; returns when the sandbox has taken everything.

        A command that does not read makes this wait. An exec has an open input if it was started with `stdin_open`.

        Args:
            data: Text (as UTF-8), bytes, or an iterable of bytes for what does not fit into memory.

        Raises:
            Conflict: It has ended, or its input is not open.
            ConnectionFailed: The connection broke. How much of `data` arrived is unknown; nothing is sent twice.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                exec = await sandbox.start("tr a-z A-Z", stdin_open=True)
                await exec.write("hello")
                await exec.close_stdin()
                print((await exec.wait()).stdout)
            ```
        """
        await self._input(data, close=False)

    async def close_stdin(self) -> None:
        """Tell the command that its input is at the end; on a terminal this is Ctrl-D."""
        await self._input(b"", close=True)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters. Raises `Conflict` where it has none."""
        body = {"rows": rows, "columns": columns}
        await self._client.call("POST", f"{self._url}/resize", token=await self._token(), body=body)

    async def signal(self, signal: str | int = "TERM", *, tree: bool = True) -> None:
        """Send a signal.

        Args:
            signal: Name without SIG, or number.
            tree: To every process that descends from the exec; else to its main process alone.

        Raises:
            Conflict, NotFound: It has ended.
        """
        body = {"signal": signal, "tree": tree}
        await self._client.call("POST", f"{self._url}/signal", token=await self._token(), body=body)

    async def kill(self, timeout: float | None = None) -> None:
        """Kill all its processes, and return when they are dead; one that has ended already is fine.

        Args:
            timeout: Seconds to wait for that; None is the client's limit for every answer.
        """
        limit = -1.0 if timeout is None else timeout
        await self._client.call("DELETE", self._url, token=await self._token(), timeout=limit, repeat=True)

    async def _token(self) -> str | None:
        return await self._client.credential(self._place)

    async def _input(self, data: str | bytes | AsyncIterable[bytes], *, close: bool) -> None:
        query = requests.query_string({"close": "true" if close else None})
        content = data.encode() if isinstance(data, str) else data
        headers = {"Content-Type": "application/octet-stream"}
        url, token = f"{self._url}/stdin{query}", await self._token()
        await self._client.call("POST", url, token=token, content=content, headers=headers, timeout=None)

    async def _read(self, cursor: int | None, way: str) -> AsyncGenerator[results.Frame]:
        if cursor is not None:
            self._position = messages.Position(cursor, self._position.dropped)
        elif self._position.ended:
            return
        async with contextlib.aclosing(self._resumed(self._position, way, None)) as frames:
            async for frame in frames:
                yield frame

    async def _resumed(
        self, position: messages.Position, way: str, deadline: float | None
    ) -> AsyncGenerator[results.Frame]:
        """Give out what is new until the end, making lost connections anew."""
        outage, spoken = pauses.Outage(), False
        while not self._is_done(position):
            try:
                async with contextlib.aclosing(self._pieces(way, position.next_cursor, deadline)) as pieces:
                    async for piece in pieces:
                        outage.over()
                        spoken = True
                        frame = position.take(piece)
                        if frame is not None:
                            yield frame
                        if self._is_done(position):
                            return
                position.ended = await self._is_over()  # the reader began beyond the end, maybe
                problem: errors.TraforoError = errors.ConnectionFailed(f"the output of {self.id} stopped")
            except pauses.TRANSIENT as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                problem = error
            except errors.BadAnswer:
                if spoken or way == _WAYS[-1]:
                    raise
                way = self._way = _WAYS[_WAYS.index(way) + 1]
                continue
            if self._is_done(position):
                return
            pause = outage.pause(time.monotonic())
            if pause is None:
                raise self._out_of_reach(problem)
            await edges.sleep(pause)

    def _out_of_reach(self, problem: errors.TraforoError) -> errors.TraforoError:
        """Say on the error of an exec that was followed in vain how to come back to it."""
        problem.hint = f"it may still run: `get_exec({self.id!r})` goes on with it once the server is back"
        problem.fields = {"exec_id": self.id}
        return problem

    def _is_done(self, position: messages.Position) -> bool:
        return position.ended or self._left

    async def _is_over(self) -> bool:
        return (await self.result()).status != "running"

    async def _pieces(self, way: str, cursor: int, deadline: float | None) -> AsyncGenerator[messages.Piece]:
        """Read over one connection, until it is over."""
        if way == "socket":
            socket = await self._socket(cursor)
            try:
                while (message := await socket.receive()) is not None:
                    yield messages.piece(message)
            finally:
                await socket.close()
        elif way == "lines":
            query = requests.query_string({"cursor": cursor, "encoding": "base64", "follow": "true"})
            lines = self._client.lines(f"{self._url}/stream{query}", token=await self._token())
            async with contextlib.aclosing(lines) as found:
                async for line in found:
                    yield messages.line(line)
        else:
            while True:
                page = await self._page(cursor, deadline)
                yield messages.Piece(None, None, page.dropped)
                for frame in page.frames:
                    yield messages.Piece(frame, frame.cursor + 1)
                yield messages.Piece(None, page.next_cursor)
                cursor = page.next_cursor
                if not page.frames and await self._is_over():
                    return

    async def _socket(self, cursor: int) -> sockets.Socket:
        headers = requests.bearer(await self._token())
        return await edges.websocket(f"{self._url}/ws{requests.query_string({'cursor': cursor})}", headers)

    async def _page(self, cursor: int, deadline: float | None, wait: float | None = None) -> answers.Page:
        wait = POLL_SECONDS if wait is None else wait
        if deadline is not None:
            wait = min(wait, deadline - time.monotonic())
            if wait <= 0:
                raise errors.RequestTimedOut(f"exec {self.id} still runs")
        query = requests.query_string({"cursor": cursor, "wait": f"{wait:.3f}", "limit": _PAGE, "encoding": "base64"})
        url, limit = f"{self._url}/frames{query}", wait + transports.WAIT_MARGIN
        response = await self._client.call("GET", url, token=await self._token(), timeout=limit)
        return answers.frames(answers.document(response.content))
