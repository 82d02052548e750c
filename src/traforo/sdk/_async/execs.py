"""A command that was started: wait for it, read its output, signal it. Reading goes on where a connection broke."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from traforo.sdk import answers, errors, requests, results, transports
from traforo.sdk._async import clients, edges

POLL_SECONDS = 30.0
"""How long the server holds a request for frames that are not there yet; it allows up to 60."""
RECONNECT_SECONDS = 60.0
"""For how long lost connections are made anew before the reader is told."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_PAGE = 1000


class AsyncExec:
    """A handle of one exec, made by `AsyncSandbox.start` or `AsyncSandbox.get_exec`.

    Example:
        ```python
        async with await AsyncSandbox.create() as sandbox:
            exec = await sandbox.start("for i in 1 2 3; do echo $i; sleep 0.1; done")
            async for frame in exec.frames():
                print(frame.type, frame.data)
            result = await exec.wait()
            print(result.exit_code)
        ```
    """

    def __init__(self, client: clients.AsyncClient, place: requests.Place, exec_id: str) -> None:
        self.id = exec_id
        """`exec_` and a ULID."""
        self.next_cursor = 0
        """Where `frames` goes on, after the last frame it gave out."""
        self.dropped = 0
        """Bytes of output that were gone from the log before they were read."""
        self._ended = False
        self._client = client
        self._place = place
        self._url = f"{place.url}/exec/{requests.checked_id(exec_id)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def result(self) -> results.ExecResult:
        """Return what is known of it now, output included."""
        token = await self._client.credential(self._place)
        response = await self._client.call("GET", self._url, token=token, repeat=True)
        return answers.exec_result(answers.document(response.content))

    async def wait(self, timeout: float | None = None) -> results.ExecResult:
        """Wait until it ends and return its result.

        Args:
            timeout: Seconds to wait at most; the exec goes on when they are over. None waits for ever.

        Raises:
            RequestTimedOut: It still runs after `timeout`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._ended:
            async for _ in self._pages(self.next_cursor, deadline):
                pass
        return await self.result()

    async def frames(self, cursor: int | None = None) -> AsyncIterator[results.Frame]:
        """Read its output as it comes, piece by piece, the last one being of type `exit`.

        Args:
            cursor: Where to begin: 0 is the start, None where this handle was. Frames of the past can be read again for
                as long as the server keeps them.

        Raises:
            ConnectionFailed: The server could not be reached for a minute. Calling again goes on at the same place.
        """
        if cursor is not None:
            self.next_cursor = cursor
        elif self._ended:
            return
        async for page in self._pages(self.next_cursor, None):
            self.dropped += page.dropped
            for frame in page.frames:
                self.next_cursor = frame.cursor + 1
                yield frame
            self.next_cursor = page.next_cursor

    async def signal(self, signal: str | int = "TERM", *, tree: bool = True) -> None:
        """Send a signal.

        Args:
            signal: Name without SIG, or number.
            tree: To every process that descends from the exec; else to its main process alone.

        Raises:
            Conflict, NotFound: It has ended.
        """
        token = await self._client.credential(self._place)
        await self._client.call("POST", f"{self._url}/signal", token=token, body={"signal": signal, "tree": tree})

    async def kill(self) -> None:
        """Kill all its processes; one that has ended already is fine."""
        try:
            await self.signal("KILL")
        except (errors.Conflict, errors.NotFound) as error:
            if error.fields.get("kind") not in {None, "process"}:
                raise

    async def _pages(self, cursor: int, deadline: float | None) -> AsyncIterator[answers.Page]:
        """Give out pages until the one with the end, making lost connections anew."""
        outage: float | None = None
        pauses = _Pauses()
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise errors.RequestTimedOut(f"exec {self.id} still runs")
            try:
                page = await self._page(cursor, min(POLL_SECONDS, left))
            except errors.ConnectionFailed:
                outage = outage or time.monotonic()
                if time.monotonic() - outage > RECONNECT_SECONDS:
                    raise
                await edges.sleep(pauses.next())
                continue
            outage, pauses = None, _Pauses()
            cursor = page.next_cursor
            self._ended = await self._is_end(page)
            yield page
            if self._ended:
                return

    async def _is_end(self, page: answers.Page) -> bool:
        if page.frames:
            return any(frame.type == "exit" for frame in page.frames)
        # Silence for a whole poll: either nothing was written, or the reader began beyond the end.
        return (await self.result()).status != "running"

    async def _page(self, cursor: int, wait: float) -> answers.Page:
        query = requests.query_string({"cursor": cursor, "wait": f"{wait:.3f}", "limit": _PAGE, "encoding": "base64"})
        token = await self._client.credential(self._place)
        limit = wait + transports.WAIT_MARGIN
        response = await self._client.call("GET", f"{self._url}/frames{query}", token=token, timeout=limit)
        return answers.frames(answers.document(response.content))


class _Pauses:
    """Growing pauses between attempts."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        """Return seconds to pause."""
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause
