# Written by tools/async_to_sync.py. Change _async/ports.py instead.
"""Ports of a sandbox as they are reached from outside, whatever networks it has."""

from __future__ import annotations

from typing import Literal

from traforo.sdk import answers, places, requests
from traforo.sdk._sync import clients, edges


class Ports:
    """The ports of one sandbox, as `sandbox.ports`.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            where = sandbox.ports.url(8000)
            print(where.url, where.public)
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/ports"

    def url(self, port: int, protocol: Literal["http", "https", "ws", "wss"] = "http") -> places.PortUrl:
        """Return where a port is reached, and the token that opens it. Nothing has to listen there yet."""
        query = requests.query_string({"protocol": protocol})
        url = f"{self._url}/{requests.port_number(port)}/url{query}"
        response = self._client.call("GET", url, token=self._token(), repeat=True)
        return places.port_url(answers.document(response.content))

    def publish(self, port: int) -> places.PortUrl:
        """Let anybody use a port, without any credential."""
        return self._set(port, public=True)

    def unpublish(self, port: int) -> places.PortUrl:
        """Ask for a credential again."""
        return self._set(port, public=False)

    def list(self) -> tuple[places.OpenPort, ...]:
        """Return the TCP ports that something in the sandbox listens on."""
        response = self._client.call("GET", self._url, token=self._token(), repeat=True)
        return tuple(places.open_ports(answers.document(response.content)))

    def connect(self, port: int) -> edges.Tunnel:
        """Open a connection of plain bytes to a port, for what is not HTTP.

        Returns:
            A socket; in an event loop a pair of stream reader and writer. The caller closes it.

        Raises:
            PortUnreachable: Nothing listens there.
            ConnectionFailed: The server cannot be reached.
        """
        url = f"{self._place.url}/proxy/{requests.port_number(port)}"
        return edges.tunnel(url, requests.bearer(self._token()))

    def _set(self, port: int, *, public: bool) -> places.PortUrl:
        url = f"{self._url}/{requests.port_number(port)}"
        response = self._client.call("POST", url, token=self._token(), body={"public": public})
        return places.port_url(answers.document(response.content))

    def _token(self) -> str | None:
        return self._client.credential(self._place)
