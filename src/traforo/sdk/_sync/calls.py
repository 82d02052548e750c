# Written by tools/async_to_sync.py. Change _async/calls.py instead.
"""Commands that are waited for: in the request that starts them, found again when that breaks, or heard as they write.

One request is the quickest way to a result. When its connection breaks, the command goes on, and over a restart of its
worker too; it is known by a tag that no other has, so it is looked for and followed to its end. Nothing is sent twice.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from traforo.sdk import answers, errors, listeners, pauses, requests, results
from traforo.sdk._sync import clients, edges, execs

PREFIX = "call-"
"""How the tags begin that are given to commands without one."""
LOOK_AGAIN_SECONDS = (0.1, 0.3, 0.6)
"""Pauses before a command that is not known is looked for again: its request may still be on its way."""


def waited(
    client: clients.Client,
    place: requests.Place,
    url: str,
    body: Mapping[str, Any],
    *,
    tag: str | None,
    limit: float | None,
) -> Mapping[str, Any] | execs.Exec:
    """Start something, wait for its end and return the answer; or a handle of it, if the connection broke meanwhile.

    Args:
        client: Sends it.
        place: The sandbox.
        url: Where to.
        body: What to start, without its tag.
        tag: The caller's own, of which there may be many: what has one cannot be told from others.
        limit: Seconds to wait for the answer; None waits for ever.

    Raises:
        ConnectionFailed: The server was not there to begin with, or not for a minute; or what was started cannot be
            found. `fields` has the `tag`.
    """
    mark = tag or PREFIX + secrets.token_hex(8)
    sent = {**body, "tag": mark}
    try:
        token = client.credential(place)
        response = client.call("POST", url, token=token, body=sent, timeout=limit)
    except errors.ConnectionFailed as problem:
        if problem.fields.get("sent") is False:
            raise
        advise(problem, f"it may run: `list_execs(tag={mark!r})` tells", tag=mark)
        if tag is None and (found := _found(client, place, mark, problem)) is not None:
            return found
        raise
    return answers.document(response.content)


def advise(problem: errors.ConnectionFailed, hint: str, **fields: Any) -> None:
    """Say on the error of an answer that was lost what can be done about it."""
    if problem.fields.get("sent") is not False:
        problem.hint = hint
        problem.fields.update(fields)


def heard(started: execs.Exec, on_stdout: edges.Listener, on_stderr: edges.Listener) -> results.ExecResult:
    """Tell what a command writes to whoever listens, as it comes, and return its result."""
    texts = {"stdout": listeners.Text(), "stderr": listeners.Text()}
    listening = {"stdout": on_stdout, "stderr": on_stderr}
    with contextlib.closing(started.output()) as frames:
        for frame in frames:
            for kind, text in texts.items():
                listener = listening[kind]
                piece = text.take(frame, kind)
                if listener is not None and piece:
                    edges.told(listener, piece)
    return started.result()


def _found(
    client: clients.Client, place: requests.Place, mark: str, problem: errors.ConnectionFailed
) -> execs.Exec | None:
    """Return a handle of what has this tag, as soon as the worker answers; None if it does not, or knows nothing."""
    again, outage = iter(LOOK_AGAIN_SECONDS), pauses.Outage()
    url = f"{place.url}/exec{requests.query_string({'tag': mark})}"
    pause: float | None = 0.0
    while pause is not None:
        edges.sleep(pause)
        try:
            response = client.call("GET", url, token=client.credential(place))
        except pauses.TRANSIENT:
            pause = outage.pause(time.monotonic())
            continue
        known, _ = answers.execs(answers.document(response.content))
        if known:
            return execs.Exec(client, place, known[0].exec_id)
        pause = next(again, None)
        if pause is None:
            advise(problem, "the worker knows nothing of it: most probably it was never started")
    return None
