"""`traforo port` and its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlencode, urlsplit

from cyclopts import Parameter

from traforo import cli
from traforo.cli import names, options, printers

if TYPE_CHECKING:
    from traforo.sdk import PortUrl

Port = Annotated[int, Parameter(help="Number of the port in the sandbox.")]


def url(
    sandbox: options.SandboxId,
    port: Port,
    path: str | None = None,
    /,
    *,
    protocol: Literal["http", "https", "ws", "wss"] | None = None,
    host: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Print a URL that opens a port.

    `curl "$(traforo port url $ID 8000 /index.html)"`. Where a credential is asked for, because the server runs in
    prod mode and the port is not public, the URL holds a token: it opens the ports of this sandbox and nothing else,
    to whoever has it, for as long as the sandbox lives. The URL is one below that of the worker, or has a host name
    of its own where the server has a domain for them.

    Args:
        sandbox: Id of the sandbox.
        port: Number of the port in the sandbox.
        path: Path at the port, and its query [default: none].
        protocol: What is spoken there [default: http, or https where the worker is reached so].
        host: Print the URL with a host name of its own, also below `localhost`: of this machine alone, then.
        url: URL of the server.
        json: Print JSON, with both URLs and the token apart.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        found = names.sandbox(sandbox, client)
        secure = found.connect_url.startswith("https:")
        where = found.ports.url(port, protocol or ("https" if secure else "http"))
    if json:
        printers.document(results.as_json(where))
    else:
        print(printers.shown(_opening(where, path or "", host=host)))


def _opening(where: PortUrl, path: str = "", *, host: bool = False) -> str:
    """Return the URL that opens a path at a port by itself."""
    named = where.host_url or ""
    everywhere = not (urlsplit(named).hostname or "localhost").endswith("localhost")
    base = named if everywhere or (host and named) else where.url
    whole = base.rstrip("/") + "/" + path.removeprefix("/") if path else base
    if where.token is None or where.public:
        return whole
    parts = urlsplit(whole)
    query = "&".join(filter(None, (parts.query, urlencode({"traforo_traffic_token": where.token}))))
    return parts._replace(path=parts.path or "/", query=query, fragment="").geturl()


def list_(sandbox: options.SandboxId, /, *, url: options.Url = None, json: options.Json = False) -> None:
    """List the ports that something in a sandbox listens on.

    Args:
        sandbox: Id of the sandbox.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        found = names.sandbox(sandbox, client).ports.list()
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
    from traforo.sdk import Client

    with Client(url) as client:
        print(printers.shown(_opening(names.sandbox(sandbox, client).ports.publish(port))))


def unpublish(sandbox: options.SandboxId, port: Port, /, *, url: options.Url = None) -> None:
    """Ask for a credential at a port again.

    Args:
        sandbox: Id of the sandbox.
        port: Number of the port in the sandbox.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        names.sandbox(sandbox, client).ports.unpublish(port)


port = cli.family("port", url, list_, publish, unpublish)
