"""Blocking work in threads that nobody abandons: who is cancelled meanwhile waits for its end.

A descriptor that was closed under a thread is another file soon. So what is done here is bounded, and short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


async def run(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a thread. When this is cancelled it goes on to the end of the call before it gives way."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
