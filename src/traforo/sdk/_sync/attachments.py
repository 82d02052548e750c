# Written by tools/async_to_sync.py. Change _async/attachments.py instead.
"""A connection to a running command that goes both ways: its output as it comes, and keys, signals and sizes in the
other direction.

Output is made whole again after a connection broke. What was on its way into the sandbox at that moment may be lost,
and is never sent twice; what is written while there is no connection waits for the next one.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from traforo.sdk import errors, messages, requests
from traforo.sdk._sync import clients, edges, execs

if TYPE_CHECKING:
    from traforo.sdk._sync import sockets

WAITING_BYTES = 64 * 1024
"""Input that may wait for a connection at most."""


class Attachment(execs.Exec):
    r"""A handle of an exec with a connection of its own, made by `Terminals.attach`.

    Leaving the block ends the connection; the command goes on.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            terminal = sandbox.terminals.create(["cat"], rows=24, columns=80)
            with sandbox.terminals.attach(terminal.id) as attached:
                attached.write("hello\r")
                for frame in attached.output():
                    if b"hello" in frame.data:
                        break
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place, exec_id: str, cursor: int = 0) -> None:
        super().__init__(client, place, exec_id)
        self.connected = False
        """Whether there is a connection at the moment."""
        self._position = messages.Position(cursor)
        self._way = "socket"
        self._current: sockets.Socket | None = None
        self._fresh = False
        self._size: bytes | None = None
        self._waiting: list[bytes] = []
        self._lock = edges.lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def open(self) -> Self:
        """Connect now, so that what is wrong is known before anything is read. Raises `NotFound` and its like."""
        self._current = self._opened(self._position.next_cursor)
        self._fresh = True
        return self

    def detach(self) -> None:
        """End the connection; `output` ends, and the command goes on."""
        self._left = True
        socket, self._current, self.connected = self._current, None, False
        if socket is not None:
            socket.close()

    def write(self, data: str | bytes | Iterable[bytes]) -> None:
        """Write to its standard input or terminal, without waiting until it is read.

        Args:
            data: Text (as UTF-8), bytes, or an iterable of bytes.

        Raises:
            ConnectionFailed: The connection broke at this moment, so that it is unknown whether the input arrived; or
                there is none, and more waits for one than 64 KiB.
        """
        if isinstance(data, str | bytes):
            raw = data.encode() if isinstance(data, str) else data
            for start in range(0, len(raw), messages.STDIN_BYTES):
                self._send(messages.stdin(raw[start : start + messages.STDIN_BYTES]))
            return
        for block in data:
            self.write(block)

    def close_stdin(self) -> None:
        """Tell the command that its input is at the end; on a terminal this is Ctrl-D."""
        self._send(messages.end_of_stdin())

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters; it is told again after a connection broke."""
        self._size = messages.resize(rows, columns)
        if self._current is not None:
            self._send(self._size)

    def signal(self, signal: str | int = "TERM", *, tree: bool = True) -> None:
        """Send a signal: by its name without SIG, or by number."""
        number = signal if isinstance(signal, int) else int(getattr(signals, f"SIG{signal}", 0))
        if not 0 < number < 256:
            raise errors.InvalidRequest(f"unknown signal {signal!r}", fields={"field": "signal"})
        self._send(messages.signal(number, tree=tree))

    def _send(self, message: bytes) -> None:
        with self._lock:
            if self._left:
                raise errors.Conflict("cannot write: detached")
            if self._current is None:
                self._wait(message)
                return
            try:
                self._current.send(message)
            except errors.ConnectionFailed:
                self._current, self.connected = None, False
                raise  # it may have arrived or not: sent again, it might come twice

    def _wait(self, message: bytes) -> None:
        if sum(len(item) for item in self._waiting) + len(message) > WAITING_BYTES:
            raise errors.ConnectionFailed("cannot write: there is no connection, and no more room to wait for one")
        self._waiting.append(message)

    def _opened(self, cursor: int) -> sockets.Socket:
        socket = self._socket(cursor)
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for message in ([] if self._size is None else [self._size]) + waiting:
                socket.send(message)
            self._current, self.connected = socket, True
        return socket

    def _pieces(self, way: str, cursor: int, deadline: float | None) -> Generator[messages.Piece]:
        if way != "socket":
            yield from super()._pieces(way, cursor, deadline)
            return
        if self._fresh and self._current is not None:
            socket, self._fresh = self._current, False
        else:
            socket = self._opened(cursor)
        try:
            while not self._left and (message := socket.receive()) is not None:
                yield messages.piece(message)
        finally:
            with self._lock:
                self._current, self.connected = None, False
            socket.close()
