"""Long work on the event loop, in slices: one at a time however many want one, and a pause for everybody else between.

How long the work takes is up to whoever made the names and patterns it is about. So its share of the loop is bounded
for all of it together, by time and not by a number of steps, and nobody waits for more than a slice and its last step.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

SLICE_SECONDS = 0.001
"""How long work goes on before others get their turn."""
PAUSE_SECONDS = 0.002
"""How long none goes on then."""


class Pace:
    """One piece of work. Between two steps of it nothing may be waited for."""

    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn
        self._until = 0.0

    async def step(self) -> bool:
        """Go on with the next step; tell whether others had their turn before it."""
        if time.monotonic() < self._until:
            return False
        self.rest()
        await self._turn.acquire()  # in the order of asking
        try:
            await asyncio.sleep(PAUSE_SECONDS)
        except BaseException:
            self._turn.release()
            raise
        self._until = time.monotonic() + SLICE_SECONDS
        return True

    def rest(self) -> None:
        """Let others go on. Idempotent."""
        if self._until:
            self._until = 0.0
            self._turn.release()


class Paces:
    """The work of this worker."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Pace]:
        """Give a pace for the length of a block."""
        pace = Pace(self._turn)
        try:
            yield pace
        finally:
            pace.rest()
