# Written by tools/async_to_sync.py. Change _async/execs.py instead.
"""A command that was started: wait for it, read its output, signal it. Reading goes on where a connection broke."""

from __future__ import annotations

import time
from collections.abc import Iterator

from traforo.sdk import answers, errors, requests, results, transports
from traforo.sdk._sync import clients, edges

POLL_SECONDS = 30.0
"""How long the server holds a request for frames that are not there yet; it allows up to 60."""
RECONNECT_SECONDS = 60.0
"""For how long lost connections are made anew before the reader is told."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_PAGE = 1000


class Exec:
    """A handle of one exec, made by `Sandbox.start` or `Sandbox.get_exec`.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            exec = sandbox.start("for i in 1 2 3; do echo $i; sleep 0.1; done")
            for frame in exec.frames():
                print(frame.type, frame.data)
            result = exec.wait()
            print(result.exit_code)
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place, exec_id: str) -> None:
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

    def result(self) -> results.ExecResult:
        """Return what is known of it now, output included."""
        token = self._client.credential(self._place)
        response = self._client.call("GET", self._url, token=token, repeat=True)
        return answers.exec_result(answers.document(response.content))

    def wait(self, timeout: float | None = None) -> results.ExecResult:
        """Wait until it ends and return its result.

        Args:
            timeout: Seconds to wait at most; the exec goes on when they are over. None waits for ever.

        Raises:
            RequestTimedOut: It still runs after `timeout`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._ended:
            for _ in self._pages(self.next_cursor, deadline):
                pass
        return self.result()

    def frames(self, cursor: int | None = None) -> Iterator[results.Frame]:
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
        for page in self._pages(self.next_cursor, None):
            self.dropped += page.dropped
            for frame in page.frames:
                self.next_cursor = frame.cursor + 1
                yield frame
            self.next_cursor = page.next_cursor

    def signal(self, signal: str | int = "TERM", *, tree: bool = True) -> None:
        """Send a signal.

        Args:
            signal: Name without SIG, or number.
            tree: To every process that descends from the exec; else to its main process alone.

        Raises:
            Conflict, NotFound: It has ended.
        """
        token = self._client.credential(self._place)
        self._client.call("POST", f"{self._url}/signal", token=token, body={"signal": signal, "tree": tree})

    def kill(self) -> None:
        """Kill all its processes; one that has ended already is fine."""
        try:
            self.signal("KILL")
        except (errors.Conflict, errors.NotFound) as error:
            if error.fields.get("kind") not in {None, "process"}:
                raise

    def _pages(self, cursor: int, deadline: float | None) -> Iterator[answers.Page]:
        """Give out pages until the one with the end, making lost connections anew."""
        outage: float | None = None
        pauses = _Pauses()
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise errors.RequestTimedOut(f"exec {self.id} still runs")
            try:
                page = self._page(cursor, min(POLL_SECONDS, left))
            except errors.ConnectionFailed:
                outage = outage or time.monotonic()
                if time.monotonic() - outage > RECONNECT_SECONDS:
                    raise
                edges.sleep(pauses.next())
                continue
            outage, pauses = None, _Pauses()
            cursor = page.next_cursor
            self._ended = self._is_end(page)
            yield page
            if self._ended:
                return

    def _is_end(self, page: answers.Page) -> bool:
        if page.frames:
            return any(frame.type == "exit" for frame in page.frames)
        # Silence for a whole poll: either nothing was written, or the reader began beyond the end.
        return (self.result()).status != "running"

    def _page(self, cursor: int, wait: float) -> answers.Page:
        query = requests.query_string({"cursor": cursor, "wait": f"{wait:.3f}", "limit": _PAGE, "encoding": "base64"})
        token = self._client.credential(self._place)
        limit = wait + transports.WAIT_MARGIN
        response = self._client.call("GET", f"{self._url}/frames{query}", token=token, timeout=limit)
        return answers.frames(answers.document(response.content))


class _Pauses:
    """Growing pauses between attempts."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        """Return seconds to pause."""
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause
