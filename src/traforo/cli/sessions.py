"""A command on a terminal, from its start to its end, with this program's terminal lent to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traforo.cli import names, printers, streams, terminals

if TYPE_CHECKING:
    from traforo.sdk import AsyncAttachment, AsyncClient, AsyncSandbox


def run(
    sandbox_id: str,
    command: tuple[str, ...] | None,
    how: Mapping[str, Any],
    *,
    detach_keys: bytes,
    interactive: bool = True,
    sandbox_token: str | None = None,
    url: str | None = None,
) -> int:
    """Start a command, or the user's shell, on a terminal and return the exit code for this program."""
    from traforo.sdk import errors

    whole_id = _whole(sandbox_id, url)

    async def main(client: AsyncClient) -> int:
        sandbox = await _connected(client, whole_id, sandbox_token)
        rows, columns = terminals.size()
        started = await sandbox.terminals.create(command or None, rows=rows, columns=columns, **how)
        try:
            attached = await sandbox.terminals.attach(started.id)
        except BaseException:
            await started.kill()
            raise
        return await _lend(sandbox, attached, detach_keys, interactive=interactive)

    try:
        return asyncio.run(_with_client(url, main))
    except errors.StartFailed as error:
        printers.error(error.message, error.hint or streams.start_hint(command or ()))
        return streams.start_failure(error.fields.get("stage"), error.fields.get("errno_name"))


def attach(
    sandbox_id: str, exec_id: str, *, cursor: int, detach_keys: bytes, interactive: bool, url: str | None
) -> int:
    """Connect to a command that runs on a terminal and return the exit code for this program."""
    whole_id = _whole(sandbox_id, url)

    async def main(client: AsyncClient) -> int:
        sandbox = await _connected(client, whole_id, None)
        attached = await sandbox.terminals.attach(exec_id, cursor=cursor)
        return await _lend(sandbox, attached, detach_keys, interactive=interactive)

    return asyncio.run(_with_client(url, main))


def _whole(sandbox_id: str, url: str | None) -> str:
    from traforo.sdk import Client

    with Client(url) as client:
        return names.whole(sandbox_id, client)


async def _with_client(url: str | None, main: Any) -> int:
    from traforo.sdk import AsyncClient

    async with AsyncClient(url) as client:
        return int(await main(client))


async def _connected(client: AsyncClient, sandbox_id: str, token: str | None) -> AsyncSandbox:
    from traforo.sdk import AsyncSandbox

    return await AsyncSandbox.connect(sandbox_id, sandbox_token=token, client=client)


async def _lend(sandbox: AsyncSandbox, attached: AsyncAttachment, keys: bytes, *, interactive: bool) -> int:
    async with attached:
        try:
            ended = await terminals.session(attached, detach_keys=keys, interactive=interactive)
        except streams.Left:
            if not interactive:  # nobody could come back to it by mistake: as `exec` without a terminal
                await attached.kill()
            raise
    if ended is None:
        printers.note("")  # the cursor stands behind a prompt
        printers.note(f"detached: `traforo attach {sandbox.id} {attached.id}` comes back to it")
        return 0
    end, code = ended
    return streams.exit_code(end, code, await _end_reason(sandbox) if end == "lost" else None)


async def _end_reason(sandbox: AsyncSandbox) -> str | None:
    from traforo.sdk import errors

    try:
        return (await sandbox.info()).reason
    except errors.TraforoError:
        return None
