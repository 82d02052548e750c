"""Searches text in the files of a sandbox, and files by name: within limits of time, bytes and answers.

What is searched for is the text as it stands, never an expression: time is bounded by the bytes that are read. Files
that are not text (a NUL byte at their beginning, or a line that never ends) are passed over. They are read block by
block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from traforo.api import threads
from traforo.domain import errors
from traforo.worker.files import descriptors, files, globs, openings, paces, walks
from traforo.worker.runtimes import contract

MAX_TEXT_CHARACTERS = 1024
"""Longest text that is searched for."""
MAX_LETTERS = 64
"""Longest text without case that has other letters than those of ASCII: each may be tried at each place."""
MAX_SECONDS = 30.0
"""How long a search goes on; what it has found by then is the answer."""
MAX_BYTES = 4 * 1024 * 1024 * 1024
"""Most bytes that one search reads."""
MAX_LINE_BYTES = 1024 * 1024
"""A file with a longer line is not text."""
SHOWN_CHARACTERS = 500
"""Most characters of a line in an answer, around what was found."""
_BINARY_BYTES = 8192
_SHOWN_BEFORE = 100


@dataclass(frozen=True, slots=True)
class Match:
    """A line that has the text."""

    path: str
    line: int
    """From 1."""
    column: int
    """Of the first occurrence in the line, in characters from 1."""
    text: str
    """The line, or `SHOWN_CHARACTERS` of it around the occurrence; U+FFFD for what is not UTF-8."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    matches: Sequence[Match]
    truncated: bool
    """There may be more: a limit of answers, bytes or time was reached."""


class Needle:
    """A text to search for."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        """Compile. Raises `InvalidRequest` for one that no line has, `TooLarge`."""
        if not text or "\n" in text or "\0" in text:
            raise errors.InvalidRequest("cannot search: 'text' is empty or more than a line", field="text")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise errors.TooLarge(
                f"cannot search for more than {MAX_TEXT_CHARACTERS} characters", limit=MAX_TEXT_CHARACTERS, field="text"
            )
        # Without case bytes suffice for ASCII; other letters have theirs as characters alone.
        self._text = re.compile(re.escape(text), re.IGNORECASE) if ignore_case and not text.isascii() else None
        if self._text is not None and len(text) > MAX_LETTERS:
            raise errors.TooLarge(
                f"cannot search without case for more than {MAX_LETTERS} characters, unless all are ASCII",
                limit=MAX_LETTERS,
                field="text",
            )
        self._lower = ignore_case and self._text is None
        encoded = text.encode(errors="surrogateescape")
        self._bytes = encoded.lower() if self._lower else encoded
        self._block = self._lowered = b""

    def find(self, block: bytes, at: int) -> int:
        """Return where the text next is, in bytes; -1 if nowhere."""
        if self._lower and block is not self._block:
            self._block, self._lowered = block, block.lower()
        if self._text is None:
            return (self._lowered if self._lower else block).find(self._bytes, at)
        text = block[at:].decode(errors="surrogateescape")
        match = self._text.search(text)
        return at + len(text[: match.start()].encode(errors="surrogateescape")) if match else -1


class Scanner:
    """Searches one file that is fed to it in blocks. Pure."""

    def __init__(self, needle: Needle, path: str) -> None:
        self._needle = needle
        self._path = path
        self._rest = b""
        self._line = 1
        self._begun = False

    def feed(self, block: bytes, limit: int) -> list[Match] | None:
        """Return the matches in the lines that are whole by now, at most `limit`; None for what is not text."""
        if not self._begun:
            self._begun = True
            if b"\0" in block[:_BINARY_BYTES]:
                return None
        data = self._rest + block
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > MAX_LINE_BYTES:
            return None
        return self._scan(data[:end], limit)

    def finish(self, limit: int) -> list[Match]:
        """Return the matches in the last line, which no newline ended."""
        return self._scan(self._rest, limit)

    def _scan(self, data: bytes, limit: int) -> list[Match]:
        found: list[Match] = []
        at = 0
        line_at = 0
        while len(found) < limit and (hit := self._needle.find(data, at)) >= 0:
            start = data.rfind(b"\n", 0, hit) + 1
            end = data.find(b"\n", hit)
            end = len(data) if end < 0 else end
            self._line += data.count(b"\n", line_at, start)
            line_at = start
            found.append(_match(self._path, self._line, data[start:hit], data[hit:end]))
            at = end
        self._line += data.count(b"\n", line_at)
        return found


def _match(path: str, line: int, before: bytes, rest: bytes) -> Match:
    head, tail = before.decode(errors="replace"), rest.decode(errors="replace").rstrip("\r")
    shown = head[-_SHOWN_BEFORE:] if len(head) + len(tail) > SHOWN_CHARACTERS else head
    return Match(path, line, len(head) + 1, (shown + tail)[:SHOWN_CHARACTERS])


async def find(
    inside: contract.Files,
    path: str,
    *,
    user: str,
    work: paces.Paces,
    glob: globs.Glob,
    kind: contract.FileKind | None,
    after: str | None,
    limit: int,
) -> tuple[list[contract.FileStat], bool]:
    """Return the entries below a directory that fit a pattern, those behind the path `after`, and whether more do.

    Raises what the runtime raises for a path, `TooLarge`.
    """
    found: list[contract.FileStat] = []
    begin = None if after is None else os.fsencode(after)
    end = time.monotonic() + MAX_SECONDS
    entries = await walks.walk(inside, path, user=user)
    async with _comparing(work, end) as step:
        for facts in entries:
            await step()
            if kind is not None and facts.kind is not kind:
                continue
            if begin is not None and os.fsencode(facts.path) <= begin:
                continue
            directory = facts.kind is contract.FileKind.DIRECTORY
            if glob.fits(walks.relative(path, facts.path), directory=directory):
                if len(found) == limit:
                    return found, True
                found.append(facts)
    return found, False


async def search(
    inside: contract.Files,
    path: str,
    *,
    user: str,
    work: paces.Paces,
    needle: Needle,
    glob: globs.Glob | None,
    limit: int,
) -> Found:
    """Return the lines of the files below a directory, or of one file, that have a text.

    Files that the user may not read are passed over. Raises what the runtime raises for a path, `TooLarge`.
    """
    facts = await inside.stat(path, user=user)
    base, found = posixpath.dirname(path), [facts]
    if facts.kind is contract.FileKind.DIRECTORY:
        base, found = path, await walks.walk(inside, path, user=user)
    fitting = await _fitting(work, glob, base, found)
    looking = _Looking(needle, limit)
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(MAX_SECONDS),
            contextlib.aclosing(openings.each(inside, fitting, user=user)) as entries,
        ):
            async for facts, file in entries:
                # What has gone, is closed to the user or no plain file any more is passed over.
                if isinstance(file, files.OpenFile) and not await looking.look(facts.path, file):
                    return Found(looking.matches, truncated=True)
            return Found(looking.matches, truncated=False)
    return Found(looking.matches, truncated=True)


async def _fitting(
    work: paces.Paces, glob: globs.Glob | None, base: str, found: Sequence[contract.FileStat]
) -> list[contract.FileStat]:
    """Return the files among what was found, those whose path fits. Raises `TooLarge`."""
    fitting = []
    async with _comparing(work, time.monotonic() + MAX_SECONDS) as step:
        for facts in found:
            await step()
            if facts.kind is contract.FileKind.FILE and (glob is None or glob.fits(walks.relative(base, facts.path))):
                fitting.append(facts)
    return fitting


@contextlib.asynccontextmanager
async def _comparing(work: paces.Paces, end: float) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Give what is called before each entry is compared. It raises `TooLarge` after `end`, of the monotonic clock."""
    async with work.work() as pace:

        async def step() -> None:
            if await pace.step() and time.monotonic() > end:
                raise errors.TooLarge(
                    f"cannot compare all names within {MAX_SECONDS:g} s",
                    limit=int(MAX_SECONDS),
                    hint="ask for a directory below it, or with a simpler pattern",
                )

        yield step


class _Looking:
    """One search."""

    def __init__(self, needle: Needle, limit: int) -> None:
        self._needle = needle
        self._limit = limit
        self._left = MAX_BYTES
        self.matches: list[Match] = []

    async def look(self, path: str, file: files.OpenFile) -> bool:
        """Search one file, and close it; False when the search has to end."""
        try:
            return await self._scan(file, Scanner(self._needle, path))
        finally:
            file.close()

    async def _scan(self, file: files.OpenFile, scanner: Scanner) -> bool:
        left = file.size
        while left > 0:
            block = await file.read(min(left, descriptors.BLOCK_BYTES))
            if not block:
                break
            left -= len(block)
            self._left -= len(block)
            room = self._limit + 1 - len(self.matches)
            if len(block) <= descriptors.INLINE_BYTES:
                found = scanner.feed(block, room)
            else:
                found = await threads.run(scanner.feed, block, room)
            if found is None:
                return self._left > 0
            if not self._take(found):
                return False
        return self._take(scanner.finish(self._limit + 1 - len(self.matches)))

    def _take(self, found: list[Match]) -> bool:
        self.matches += found
        if len(self.matches) > self._limit:
            del self.matches[self._limit :]
            return False
        return self._left > 0
