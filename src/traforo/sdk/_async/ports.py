"""Ports of a sandbox as they are reached from outside, whatever networks it has."""

from __future__ import annotations

from typing import Literal

from traforo.sdk import answers, places, requests
from traforo.sdk._async import clients, edges


class AsyncPorts:
    """The ports of one sandbox, as `sandbox.ports`.

    Example:
        ```python
        async with await AsyncSandbox.create() as sandbox:
            where = await sandbox.ports.url(8000)
            print(where.url, where.public)
        ```
    """

    def __init__(self, client: clients.AsyncClient, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/ports"

    async def url(self, port: int, protocol: Literal["http", "https", "ws", "wss"] = "http") -> places.PortUrl:
        """Return where a port is reached, and the token that opens it. Nothing has to listen there yet."""
        query = requests.query_string({"protocol": protocol})
        url = f"{self._url}/{requests.port_number(port)}/url{query}"
        response = await self._client.call("GET", url, token=await self._token(), repeat=True)
        return places.port_url(answers.document(response.content))

    async def publish(self, port: int) -> places.PortUrl:
        """Let anybody use a port, without any credential."""
        return await self._set(port, public=True)

    async def unpublish(self, port: int) -> places.PortUrl:
        """Ask for a credential again."""
        return await self._set(port, public=False)

    async def list(self) -> tuple[places.OpenPort, ...]:
        """Return the TCP ports that something in the sandbox listens on."""
        response = await self._client.call("GET", self._url, token=await self._token(), repeat=True)
        return tuple(places.open_ports(answers.document(response.content)))

    async def connect(self, port: int) -> edges.Tunnel:
        """Open a connection of plain bytes to a port, for what is not HTTP.

        Returns:
            A socket; in an event loop a pair of stream reader and writer. The caller closes it.

        Raises:
            PortUnreachable: Nothing listens there.
            ConnectionFailed: The server cannot be reached.
        """
        url = f"{self._place.url}/proxy/{requests.port_number(port)}"
        return await edges.tunnel(url, requests.bearer(await self._token()))

    async def _set(self, port: int, *, public: bool) -> places.PortUrl:
        url = f"{self._url}/{requests.port_number(port)}"
        response = await self._client.call("POST", url, token=await self._token(), body={"public": public})
        return places.port_url(answers.document(response.content))

    async def _token(self) -> str | None:
        return await self._client.credential(self._place)
