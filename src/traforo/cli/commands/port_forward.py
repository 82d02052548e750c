"""`traforo port-forward`."""

from __future__ import annotations

import asyncio

from traforo.cli import forwards, names, options, printers


def port_forward(
    sandbox: options.SandboxId,
    /,
    *ports: str,
    address: str = "127.0.0.1",
    url: options.Url = None,
) -> int:
    """Make ports of a sandbox ports of this machine.

    `traforo port-forward $ID 8000` listens on port 8000 here and passes each connection on to port 8000 in the sandbox,
    byte by byte, whatever is spoken; `8080:80` listens on 8080, `0:80` on any free port. Until Ctrl-C, or until the
    sandbox ends. The sandbox needs no network for it.

    Args:
        sandbox: Id of the sandbox.
        ports: Ports, each `PORT` or `LOCAL:PORT`.
        address: Where to listen on this machine.
        url: URL of the server.
    """
    wanted = [forwards.pair(text) for text in ports]
    if not wanted:
        raise printers.UsageError("no port to forward", "write `traforo port-forward ID 8000`")

    from traforo.sdk import AsyncClient, AsyncSandbox, Client

    with Client(url) as client:
        sandbox_id = names.whole(sandbox, client)

    async def main() -> int:
        async with AsyncClient(url) as client:
            return await forwards.serve(await AsyncSandbox.connect(sandbox_id, client=client), wanted, address)

    return asyncio.run(main())
