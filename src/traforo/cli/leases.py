"""Keeps a sandbox alive for as long as its command runs, and not much longer if this program dies."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traforo.sdk import Sandbox

SECONDS = 120.0
"""Lease of a sandbox that is renewed: how long it outlives a program that was killed."""


@contextlib.contextmanager
def renewed(sandbox: Sandbox, seconds: float = SECONDS) -> Iterator[None]:
    """Renew the lease three times as often as it needs, while the block runs."""
    from traforo.sdk import errors

    over = threading.Event()

    def renew() -> None:
        while not over.wait(seconds / 3):
            # One failure is no harm; if the server stays away, the command's own output tells.
            with contextlib.suppress(errors.TraforoError):
                sandbox.renew(seconds)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)
