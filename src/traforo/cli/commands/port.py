"""`traforo port` and its commands."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from traforo import cli
from traforo.cli import options, printers

Port = Annotated[int, Parameter(help="Number of the port in the sandbox.")]


def url(
    sandbox: options.SandboxId,
    port: Port,
    /,
    *,
    protocol: Literal["http", "https", "ws", "wss"] = "http",
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Print the URL of a port.

    Args:
        sandbox: Id of the sandbox.
        port: Number of the port in the sandbox.
        protocol: What is spoken there.
        url: URL of the server.
        json: Print JSON, with the token that opens the port and the URL with a host name of its own.
    """
    from traforo.sdk import Client, Sandbox, results

    with Client(url) as client:
        found = Sandbox.connect(sandbox, client=client).ports.url(port, protocol)
    if json:
        printers.document(results.as_json(found))
    else:
        print(printers.shown(found.url))


def list_(sandbox: options.SandboxId, /, *, url: options.Url = None, json: options.Json = False) -> None:
    """List the ports that something in a sandbox listens on.

    Args:
        sandbox: Id of the sandbox.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, Sandbox, results

    with Client(url) as client:
        found = Sandbox.connect(sandbox, client=client).ports.list()
    if json:
        printers.document({"ports": results.as_json(found)})
    else:
        printers.table(("port", "address", "public"), [(p.port, p.address, "yes" if p.public else "no") for p in found])


def publish(sandbox: options.SandboxId, port: Port, /, *, url: options.Url = None) -> None:
    """Let anybody use a port, without any credential, and print its URL.

    Args:
        sandbox: Id of the sandbox.
        port: Number of the port in the sandbox.
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox

    with Client(url) as client:
        print(printers.shown(Sandbox.connect(sandbox, client=client).ports.publish(port).url))


def unpublish(sandbox: options.SandboxId, port: Port, /, *, url: options.Url = None) -> None:
    """Ask for a credential at a port again.

    Args:
        sandbox: Id of the sandbox.
        port: Number of the port in the sandbox.
        url: URL of the server.
    """
    from traforo.sdk import Client, Sandbox

    with Client(url) as client:
        Sandbox.connect(sandbox, client=client).ports.unpublish(port)


port = cli.family("port", url, list_, publish, unpublish)
