"""This program's own terminal while it is lent to a command in a sandbox: raw mode, sizes, keys, and back to what it
was on every way out.

The terminal is put back before anything else is said: an error, a note, a traceback find it as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from traforo.cli import printers, streams

if TYPE_CHECKING:
    from traforo.sdk import AsyncAttachment

READ_BYTES = 64 * 1024
_WAITING_BLOCKS = 64
_LEAVE = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_PRIVATE_MODES = re.compile(rb"\x1b\[\?([\d;]{1,24})([hl])")
_BEGUN = re.compile(rb"\x1b(\[(\?[\d;]{0,24})?)?")
_LONGEST_SEQUENCE = 28
_CURSOR = 25
_KNOWN_MODES = frozenset({1, 25, 47, 1000, 1002, 1003, 1004, 1006, 1015, 1047, 1049, 2004})
"""Keypad, cursor, other screens, mouse, bracketed paste: what editors and shells switch."""
DEFAULT_KEYS = "ctrl-p,ctrl-q"


class Keys:
    """Finds the keys that detach in what is typed. Keys that only might begin them wait for the next one."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what to send on, and whether the keys that detach were typed."""
        if not self._sequence:
            return typed, False
        sent = b""
        for number in range(len(typed)):
            self._held += typed[number : number + 1]
            while not self._sequence.startswith(self._held):
                sent += self._held[:1]
                self._held = self._held[1:]
            if self._held == self._sequence:
                return sent, True
        return sent, False


class Modes:
    """Remembers what a command did to the terminal that it does not undo when somebody leaves it."""

    def __init__(self) -> None:
        self._on: set[int] = set()
        self._cut = b""

    def take(self, output: bytes) -> None:
        """Look at output on its way to the terminal."""
        text = self._cut + output
        for match in _PRIVATE_MODES.finditer(text):
            for number in match[1].split(b";"):
                mode = int(number or b"0")
                # The cursor is the one thing that is there unless it is hidden.
                if (match[2] == b"h") != (mode == _CURSOR):
                    self._on.add(mode)
                else:
                    self._on.discard(mode)
        tail = text.rfind(b"\x1b", max(0, len(text) - _LONGEST_SEQUENCE))
        self._cut = text[tail:] if tail >= 0 and _BEGUN.fullmatch(text, tail) else b""

    def undo(self) -> bytes:
        """Return what puts the terminal back."""
        back = b"".join(b"\x1b[?%d%c" % (n, b"h" if n == _CURSOR else b"l") for n in sorted(self._on & _KNOWN_MODES))
        return back + b"\x1b[0m"


def keys(text: str) -> bytes:
    """Read keys as `ctrl-p,ctrl-q` or `a`; nothing means none. Raises `UsageError`."""
    found = b""
    for word in [word for word in text.split(",") if word]:
        name = word.removeprefix("ctrl-")
        if len(name) != 1 or not name.isascii() or not (name.isalpha() or (word == name and name.isprintable())):
            raise printers.UsageError(f"cannot use {word!r} as a key", "write keys such as `ctrl-p,ctrl-q`")
        found += name.encode() if word == name else bytes([ord(name.lower()) & 0x1F])
    return found


def size() -> tuple[int, int]:
    """Return rows and columns of this terminal, 24 and 80 where there is none."""
    for file in (sys.stdout, sys.stdin, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(file.fileno())
            if rows and columns:
                return rows, columns
    return 24, 80


def require_terminal() -> None:
    """Raise `UsageError` unless somebody types at this program."""
    if not sys.stdin.isatty():
        raise printers.UsageError("the input is not a terminal", "run it at a terminal; `traforo exec -i` takes a pipe")


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Hand every key on as it is for a block, and put the terminal back after it."""
    former = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, former)


async def session(
    attached: AsyncAttachment, *, detach_keys: bytes, interactive: bool = True
) -> tuple[str | None, int | None] | None:
    """Lend this terminal to a command until it ends, and return its end and exit code; None if somebody left it.

    Raises `streams.Left` after a signal asked this program to end: the command goes on. Raises `TraforoError`.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    lent = _Lent(attached, Keys(detach_keys))
    descriptor = sys.stdin.fileno()
    received: list[int] = []

    def leave(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    with contextlib.ExitStack() as stack:
        if interactive:
            stack.enter_context(raw(descriptor))
            loop.add_reader(descriptor, lent.readable, descriptor)
            stack.callback(loop.remove_reader, descriptor)
        for number in _LEAVE:
            loop.add_signal_handler(number, leave, number)
            stack.callback(loop.remove_signal_handler, number)
        for number in (signal.SIGWINCH, signal.SIGCONT):
            loop.add_signal_handler(number, lent.resized, descriptor if interactive else None)
            stack.callback(loop.remove_signal_handler, number)
        sender = asyncio.create_task(lent.send())
        lent.resized(None)
        modes = Modes()
        try:
            outcome = await _output(attached, lent, modes)
            if outcome is not None:  # it has put the terminal back by itself, as far as it wants to
                modes = Modes()
            return outcome
        except asyncio.CancelledError:
            if received and task is not None:
                task.uncancel()
                raise streams.Left(received[0]) from None
            raise
        finally:
            if modes.undo() != Modes().undo():
                streams.write_whole(sys.stdout.fileno(), modes.undo())
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender


async def _output(attached: AsyncAttachment, lent: _Lent, modes: Modes) -> tuple[str | None, int | None] | None:
    end: dict[str, Any] = {}
    async with contextlib.aclosing(attached.output()) as frames:
        async for frame in frames:
            if frame.type == "exit":
                end = streams.end_of(frame)
            elif frame.type in {"stdout", "stderr"}:
                stream = sys.stdout if frame.type == "stdout" else sys.stderr
                modes.take(frame.data)
                streams.write_whole(stream.fileno(), frame.data)
    if lent.detached:
        return None
    if "end" not in end or "exit_code" not in end:
        result = await attached.result()
        return result.end, result.exit_code
    return end["end"], end["exit_code"]


class _Lent:
    """What goes from this terminal to the command: keys and sizes, in order."""

    def __init__(self, attached: AsyncAttachment, found: Keys) -> None:
        self.detached = False
        self._attached = attached
        self._keys = found
        self._queue: asyncio.Queue[bytes | tuple[int, int] | None] = asyncio.Queue()

    def readable(self, descriptor: int) -> None:
        """Take what was typed."""
        try:
            typed = os.read(descriptor, READ_BYTES)
        except OSError:  # the terminal has gone
            typed = b""
        sent, leaving = self._keys.take(typed)
        if sent:
            self._queue.put_nowait(sent)
        if leaving or not typed:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._queue.put_nowait(None)
        elif self._queue.qsize() > _WAITING_BLOCKS:  # pasted faster than it is read
            asyncio.get_running_loop().remove_reader(descriptor)
            self._paused = descriptor

    _paused: int | None = None

    def resized(self, descriptor: int | None) -> None:
        """Take the size of the terminal; after a stop it may need to be raw again."""
        if descriptor is not None:
            with contextlib.suppress(termios.error):
                tty.setraw(descriptor, termios.TCSADRAIN)
        self._queue.put_nowait(size())

    async def send(self) -> None:
        """Send everything on, until somebody leaves."""
        from traforo.sdk import errors

        while (item := await self._queue.get()) is not None:
            # Lost keys are the price of a lost connection: nobody wants them twice.
            with contextlib.suppress(errors.ConnectionFailed):
                if isinstance(item, tuple):
                    await self._attached.resize(*item)
                else:
                    await self._attached.write(item)
            if self._paused is not None and self._queue.empty():
                asyncio.get_running_loop().add_reader(self._paused, self.readable, self._paused)
                self._paused = None
        self.detached = True
        await self._attached.detach()
