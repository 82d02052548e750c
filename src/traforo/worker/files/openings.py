"""Files of a tree opened one after the other, a few ahead of their use: asking a sandbox takes longer than answering.

The order is kept, and so is the number of descriptors. What was opened and nobody came for is closed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Sequence

from traforo.domain import errors
from traforo.worker.files import files
from traforo.worker.runtimes import contract

AHEAD = 8
"""Files that are opened ahead."""

Opening = asyncio.Task[files.OpenFile] | None


async def each(
    inside: contract.Files, found: Sequence[contract.FileStat], *, user: str
) -> AsyncGenerator[tuple[contract.FileStat, files.OpenFile | errors.TraforoError | None]]:
    """Give each entry with its open file, which the caller closes, or why there is none; None for what is no file."""
    ahead: collections.deque[tuple[contract.FileStat, Opening]] = collections.deque()
    coming = iter(found)
    try:
        while True:
            while len(ahead) < AHEAD and (facts := next(coming, None)) is not None:
                ahead.append((facts, _begun(inside, facts, user)))
            if not ahead:
                return
            facts, opening = ahead[0]
            outcome = await _outcome(opening)
            ahead.popleft()
            yield facts, outcome
    finally:
        await _drop([opening for _, opening in ahead if opening is not None])


def _begun(inside: contract.Files, facts: contract.FileStat, user: str) -> Opening:
    if facts.kind is not contract.FileKind.FILE:
        return None
    return asyncio.ensure_future(files.opened(inside, facts.path, user))


async def _outcome(opening: Opening) -> files.OpenFile | errors.TraforoError | None:
    if opening is None:
        return None
    try:
        return await asyncio.shield(opening)
    except errors.TraforoError as error:
        return error


async def _drop(openings: Sequence[asyncio.Task[files.OpenFile]]) -> None:
    for opening in openings:
        opening.cancel()
    for opening in openings:
        with contextlib.suppress(errors.TraforoError, asyncio.CancelledError):
            (await opening).close()
