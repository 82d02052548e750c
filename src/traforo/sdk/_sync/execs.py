# Written by tools/async_to_sync.py. Change _async/execs.py instead.
"""A command that was started: read its output, write its input, wait for it, signal it. Reading goes on where a
connection broke; input is never sent twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from traforo.sdk import answers, errors, messages, pauses, requests, results, transports
from traforo.sdk._sync import clients, edges

if TYPE_CHECKING:
    from traforo.sdk._sync import sockets

POLL_SECONDS = 30.0
"""How long the server holds a request for frames that are not there yet; it allows up to 60."""
_PAGE = 1000
_WAYS = ("socket", "lines", "pages")
"""How output can be read, the best first; one that a server does not know is not tried again."""


class Exec:
    """A handle of one exec, made by `Sandbox.start` or `Sandbox.get_exec`.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            exec = sandbox.start("for i in 1 2 3; do echo $i; sleep 0.1; done")
            for frame in exec.output():
                print(frame.type, frame.data)
            result = exec.wait()
            print(result.exit_code)
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place, exec_id: str) -> None:
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

    def result(self) -> results.ExecResult:
        """Return what is known of it now, output included."""
        response = self._client.call("GET", self._url, token=self._token(), repeat=True)
        return answers.exec_result(answers.document(response.content))

    def wait(self, timeout: float | None = None) -> results.ExecResult:
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
            for _ in self._resumed(position, "pages", deadline):
                pass
            self._position.ended = True
        return self.result()

    def output(self, cursor: int | None = None) -> Generator[results.Frame]:
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
            with Sandbox.create() as sandbox:
                exec = sandbox.start("echo out; echo err >&2")
                for frame in exec.output():
                    print(frame.type, frame.text)
            ```
        """
        with contextlib.closing(self._read(cursor, self._way)) as frames:
            yield from frames

    def frames(self, cursor: int | None = None) -> Iterator[results.Frame]:
        """Read its output as `output` does, by plain requests that wait: what passes through every proxy."""
        with contextlib.closing(self._read(cursor, "pages")) as frames:
            yield from frames

    def written(self, cursor: int = 0) -> Generator[results.Frame]:
        """Read what it has written so far, from a cursor on, without waiting for more."""
        position = messages.Position(cursor)
        while not position.ended:
            page = self._page(position.next_cursor, None, wait=0.0)
            self._position.dropped += page.dropped
            for frame in page.frames:
                position.take(messages.Piece(frame, frame.cursor + 1))
                yield frame
            position.take(messages.Piece(None, page.next_cursor))
            if not page.frames:
                return

    def write(self, data: str | bytes | Iterable[bytes]) -> None:
        """Write to its standard input; returns when the sandbox has taken everything.

        A command that does not read makes this wait. An exec has an open input if it was started with `stdin_open`.

        Args:
            data: Text (as UTF-8), bytes, or an iterable of bytes for what does not fit into memory.

        Raises:
            Conflict: It has ended, or its input is not open.
            ConnectionFailed: The connection broke. How much of `data` arrived is unknown; nothing is sent twice.

        Example:
            ```python
            with Sandbox.create() as sandbox:
                exec = sandbox.start("tr a-z A-Z", stdin_open=True)
                exec.write("hello")
                exec.close_stdin()
                print((exec.wait()).stdout)
            ```
        """
        self._input(data, close=False)

    def close_stdin(self) -> None:
        """Tell the command that its input is at the end; on a terminal this is Ctrl-D."""
        self._input(b"", close=True)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters. Raises `Conflict` where it has none."""
        body = {"rows": rows, "columns": columns}
        self._client.call("POST", f"{self._url}/resize", token=self._token(), body=body)

    def signal(self, signal: str | int = "TERM", *, tree: bool = True) -> None:
        """Send a signal.

        Args:
            signal: Name without SIG, or number.
            tree: To every process that descends from the exec; else to its main process alone.

        Raises:
            Conflict, NotFound: It has ended.
        """
        body = {"signal": signal, "tree": tree}
        self._client.call("POST", f"{self._url}/signal", token=self._token(), body=body)

    def kill(self, timeout: float | None = None) -> None:
        """Kill all its processes, and return when they are dead; one that has ended already is fine.

        Args:
            timeout: Seconds to wait for that; None is the client's limit for every answer.
        """
        limit = -1.0 if timeout is None else timeout
        self._client.call("DELETE", self._url, token=self._token(), timeout=limit, repeat=True)

    def _token(self) -> str | None:
        return self._client.credential(self._place)

    def _input(self, data: str | bytes | Iterable[bytes], *, close: bool) -> None:
        query = requests.query_string({"close": "true" if close else None})
        content = data.encode() if isinstance(data, str) else data
        headers = {"Content-Type": "application/octet-stream"}
        url, token = f"{self._url}/stdin{query}", self._token()
        self._client.call("POST", url, token=token, content=content, headers=headers, timeout=None)

    def _read(self, cursor: int | None, way: str) -> Generator[results.Frame]:
        if cursor is not None:
            self._position = messages.Position(cursor, self._position.dropped)
        elif self._position.ended:
            return
        with contextlib.closing(self._resumed(self._position, way, None)) as frames:
            yield from frames

    def _resumed(self, position: messages.Position, way: str, deadline: float | None) -> Generator[results.Frame]:
        """Give out what is new until the end, making lost connections anew."""
        outage, spoken = pauses.Outage(), False
        while not self._is_done(position):
            try:
                with contextlib.closing(self._pieces(way, position.next_cursor, deadline)) as pieces:
                    for piece in pieces:
                        outage.over()
                        spoken = True
                        frame = position.take(piece)
                        if frame is not None:
                            yield frame
                        if self._is_done(position):
                            return
                position.ended = self._is_over()  # the reader began beyond the end, maybe
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
            edges.sleep(pause)

    def _out_of_reach(self, problem: errors.TraforoError) -> errors.TraforoError:
        """Say on the error of an exec that was followed in vain how to come back to it."""
        problem.hint = f"it may still run: `get_exec({self.id!r})` goes on with it once the server is back"
        problem.fields = {"exec_id": self.id}
        return problem

    def _is_done(self, position: messages.Position) -> bool:
        return position.ended or self._left

    def _is_over(self) -> bool:
        return (self.result()).status != "running"

    def _pieces(self, way: str, cursor: int, deadline: float | None) -> Generator[messages.Piece]:
        """Read over one connection, until it is over."""
        if way == "socket":
            socket = self._socket(cursor)
            try:
                while (message := socket.receive()) is not None:
                    yield messages.piece(message)
            finally:
                socket.close()
        elif way == "lines":
            query = requests.query_string({"cursor": cursor, "encoding": "base64", "follow": "true"})
            lines = self._client.lines(f"{self._url}/stream{query}", token=self._token())
            with contextlib.closing(lines) as found:
                for line in found:
                    yield messages.line(line)
        else:
            while True:
                page = self._page(cursor, deadline)
                yield messages.Piece(None, None, page.dropped)
                for frame in page.frames:
                    yield messages.Piece(frame, frame.cursor + 1)
                yield messages.Piece(None, page.next_cursor)
                cursor = page.next_cursor
                if not page.frames and self._is_over():
                    return

    def _socket(self, cursor: int) -> sockets.Socket:
        headers = requests.bearer(self._token())
        return edges.websocket(f"{self._url}/ws{requests.query_string({'cursor': cursor})}", headers)

    def _page(self, cursor: int, deadline: float | None, wait: float | None = None) -> answers.Page:
        wait = POLL_SECONDS if wait is None else wait
        if deadline is not None:
            wait = min(wait, deadline - time.monotonic())
            if wait <= 0:
                raise errors.RequestTimedOut(f"exec {self.id} still runs")
        query = requests.query_string({"cursor": cursor, "wait": f"{wait:.3f}", "limit": _PAGE, "encoding": "base64"})
        url, limit = f"{self._url}/frames{query}", wait + transports.WAIT_MARGIN
        response = self._client.call("GET", url, token=self._token(), timeout=limit)
        return answers.frames(answers.document(response.content))
