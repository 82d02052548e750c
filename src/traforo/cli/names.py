"""Sandboxes as people name them: by the whole id, or by as much of its end as tells it from the others.

The end, because ids begin with their worker and a time: those of one minute differ in their last characters alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traforo.sdk import Client, Sandbox

SHOWN = 8
"""Characters of an id that tables show: 40 random bits."""
_NAMED = 5
"""Ids that an error lists."""
_END = re.compile(r"[0-9A-HJKMNP-TV-Z]{1,25}", re.ASCII | re.IGNORECASE)
"""The end of a ULID; a whole id never looks like one."""


def sandbox(text: str, client: Client) -> Sandbox:
    """Return a sandbox by its id or the end of it. Raises `TraforoError`."""
    from traforo.sdk import Sandbox

    return Sandbox.connect(whole(text, client), client=client)


def whole(text: str, client: Client) -> str:
    """Return the id that somebody means; only the end of one is looked up. Raises `TraforoError`."""
    from traforo.sdk import Sandbox, errors

    if not _END.fullmatch(text):
        return text
    listed = Sandbox.list(client=client)
    found = [info.sandbox_id for info in listed if info.sandbox_id.endswith(text.upper())]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise errors.InvalidRequest(
            f"cannot tell which sandbox {text!r} is: {len(found)} ids end with it", hint=f"write more of it: {some}"
        )
    silent = f"; these workers did not answer: {', '.join(listed.missing_workers)}" if listed.missing_workers else ""
    raise errors.NotFound(f"no sandbox whose id ends with {text!r}", hint=f"`traforo list -a` shows yours{silent}")


def short(sandbox_id: str) -> str:
    """Return the end of an id, for tables."""
    return sandbox_id[-SHOWN:]
