"""`traforo create`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from traforo.cli import durations, options, printers


def create(
    *,
    shape: options.Shape = options.Shape(),  # noqa: B008 - frozen
    ttl: durations.Option = None,
    env: options.Env = (),
    metadata: Annotated[Sequence[str], Parameter(name=["--metadata", "-m"], negative="", show_default=False)] = (),
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Create a sandbox and print its id.

    It lives until it is deleted or its time limit passes: `ID=$(traforo create)`, `traforo exec $ID -- uname -a`,
    `traforo delete $ID`.

    Args:
        shape: What it is made of.
        ttl: Time until it ends by itself, such as `90`, `30m` or `1h30m` [default: 30m].
        env: Environment of each of its commands: `NAME=value`, or `NAME` for its value here. Can be repeated.
        metadata: `NAME=value`, for your own use. Can be repeated.
        url: URL of the server.
        json: Print the whole sandbox with its token and the times of its start.
    """
    from traforo.sdk import Client, Sandbox, results

    with Client(url) as client:
        sandbox = Sandbox.create(
            **shape.arguments(),
            ttl_seconds=ttl,
            env=options.variables(env) or None,
            metadata=options.labels(metadata) or None,
            client=client,
        )
        if not json:
            print(sandbox.id)
            return
        start = {"token": sandbox.token, "start_type": sandbox.start_type, "timings_ms": sandbox.timings_ms}
        printers.document({**results.as_json(sandbox.info()), "connect_url": sandbox.connect_url, **start})
