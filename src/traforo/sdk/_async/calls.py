"""Commands that are waited for: in the request that starts them, found again when that breaks, or heard as they write.

One request is the quickest way to a result. When its connection breaks, the command goes on, and over a restart of its
worker too; it is known by a tag that no other has, so it is looked for and followed to its end. Nothing is sent twice.
When the caller gives up the wait, the command is stopped, as far as that can be done in a moment.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from traforo.sdk import answers, errors, listeners, pauses, requests, results
from traforo.sdk._async import clients, edges, execs

PREFIX = "call-"
"""How the tags begin that are given to commands without one."""
LOOK_AGAIN_SECONDS = (0.1, 0.3, 0.6)
"""Pauses before a command that is not known is looked for again: its request may still be on its way."""
STOP_SECONDS = 2.0
"""How long a caller who gives up is kept at most, to stop what they waited for."""

Stop = Callable[[execs.AsyncExec, float], edges.Done]
"""Stops what was started, within so many seconds."""


async def kill(started: execs.AsyncExec, seconds: float) -> None:
    """Kill a command with all that it started."""
    await started.kill(timeout=seconds)


async def waited(
    client: clients.AsyncClient,
    place: requests.Place,
    url: str,
    body: Mapping[str, Any],
    *,
    tag: str | None,
    limit: float | None,
    stop: Stop = kill,
) -> Mapping[str, Any] | execs.AsyncExec:
    """Start something, wait for the answer and return it; or a handle of it, if the connection broke meanwhile.

    Args:
        client: Sends it.
        place: The sandbox.
        url: Where to.
        body: What to start, without its tag.
        tag: The caller's own, of which there may be many: what has one cannot be told from others.
        limit: Seconds to wait for the answer; None waits for ever.
        stop: What to do to it if the caller gives up.

    Raises:
        ConnectionFailed: The server was not there to begin with, or not for a minute; or what was started cannot be
            found. `fields` has the `tag`.
    """
    mark = tag or PREFIX + secrets.token_hex(8)
    sent = {**body, "tag": mark}
    token = await client.credential(place)
    stopping = None if tag else functools.partial(_stop_marked, client, place, mark, stop)
    async with _stopped_if_left(stopping):
        try:
            response = await client.call("POST", url, token=token, body=sent, timeout=limit)
        except errors.ConnectionFailed as problem:
            if problem.fields.get("sent") is False:
                raise
            advise(problem, f"it may run: `list_execs(tag={mark!r})` tells", tag=mark)
            if tag is None and (found := await _found(client, place, mark, problem)) is not None:
                return found
            raise
    return answers.document(response.content)


async def result(
    client: clients.AsyncClient,
    place: requests.Place,
    url: str,
    body: Mapping[str, Any],
    *,
    tag: str | None,
    limit: float | None,
) -> results.ExecResult:
    """Run a command or code to its end in one request, with the arguments of `waited`."""
    answer = await waited(client, place, url, body, tag=tag, limit=limit)
    if isinstance(answer, execs.AsyncExec):
        return await heard(answer, None, None)
    return answers.exec_result(answer)


async def begun(
    client: clients.AsyncClient, place: requests.Place, body: Mapping[str, Any], tag: str | None
) -> execs.AsyncExec:
    """Start a command that is to be followed from the beginning, and return a handle. Raises as `waited`."""
    return handle(client, place, await waited(client, place, f"{place.url}/exec", body, tag=tag, limit=-1.0))


def handle(
    client: clients.AsyncClient, place: requests.Place, answer: Mapping[str, Any] | execs.AsyncExec
) -> execs.AsyncExec:
    """Return the handle of what was started without waiting for it, given what `waited` returned."""
    if isinstance(answer, execs.AsyncExec):
        return answer
    return execs.AsyncExec(client, place, answers.field(answer, "exec_id", str))


def advise(problem: errors.ConnectionFailed, hint: str, **fields: Any) -> None:
    """Say on the error of an answer that was lost what can be done about it."""
    if problem.fields.get("sent") is not False:
        problem.hint = hint
        problem.fields.update(fields)


@contextlib.asynccontextmanager
async def stopped_if_left(started: execs.AsyncExec, stop: Stop = kill) -> AsyncIterator[None]:
    """Stop what was started if whoever waits for it in this block gives up: is cancelled or interrupted, or has a
    listener that raises. Where it is the server that failed, it goes on: one can come back to it.
    """
    async with _stopped_if_left(functools.partial(stop, started, STOP_SECONDS)):
        yield


async def fed(started: execs.AsyncExec, data: str | bytes, *, close: bool) -> None:
    """Write to what was just started; one that ends before it has read everything is fine, as commands may."""
    with contextlib.suppress(errors.Conflict):
        async with stopped_if_left(started):
            await started.write(data)
            if close:
                await started.close_stdin()


async def heard(started: execs.AsyncExec, on_stdout: edges.Listener, on_stderr: edges.Listener) -> results.ExecResult:
    """Tell what a command writes to whoever listens, as it comes, and return its result."""
    async with stopped_if_left(started):
        if on_stdout is None and on_stderr is None:
            return await started.wait()
        texts = {"stdout": listeners.Text(), "stderr": listeners.Text()}
        listening = {"stdout": on_stdout, "stderr": on_stderr}
        async with contextlib.aclosing(started.output()) as frames:
            async for frame in frames:
                for kind, text in texts.items():
                    listener = listening[kind]
                    piece = text.take(frame, kind)
                    if listener is not None and piece:
                        await edges.told(listener, piece)
        return await started.result()


@contextlib.asynccontextmanager
async def _stopped_if_left(stop: Callable[[], edges.Done] | None) -> AsyncIterator[None]:
    try:
        yield
    except (errors.TraforoError, GeneratorExit):
        raise
    except BaseException:
        if stop is not None:
            await edges.anyway(stop, STOP_SECONDS)
        raise


async def _stop_marked(client: clients.AsyncClient, place: requests.Place, mark: str, stop: Stop) -> None:
    """Stop what has this tag. Its request may still be on its way, so it is looked for more than once."""
    url = f"{place.url}/exec{requests.query_string({'tag': mark})}"
    deadline = time.monotonic() + STOP_SECONDS
    for pause in (0.0, *LOOK_AGAIN_SECONDS):
        await edges.sleep(pause)
        token = await client.credential(place)
        response = await client.call("GET", url, token=token, timeout=_left(deadline))
        known, _ = answers.execs(answers.document(response.content))
        if known:
            if known[0].status == "running":
                await stop(execs.AsyncExec(client, place, known[0].exec_id), _left(deadline))
            return


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


async def _found(
    client: clients.AsyncClient, place: requests.Place, mark: str, problem: errors.ConnectionFailed
) -> execs.AsyncExec | None:
    """Return a handle of what has this tag, as soon as the worker answers; None if it does not, or knows nothing."""
    again, outage = iter(LOOK_AGAIN_SECONDS), pauses.Outage()
    url = f"{place.url}/exec{requests.query_string({'tag': mark})}"
    pause: float | None = 0.0
    while pause is not None:
        await edges.sleep(pause)
        try:
            response = await client.call("GET", url, token=await client.credential(place))
        except pauses.TRANSIENT:
            pause = outage.pause(time.monotonic())
            continue
        known, _ = answers.execs(answers.document(response.content))
        if known:
            return execs.AsyncExec(client, place, known[0].exec_id)
        pause = next(again, None)
        if pause is None:
            advise(problem, "the worker knows nothing of it: most probably it was never started")
    return None
