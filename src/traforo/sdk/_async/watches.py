"""A watch of a directory as it is read: made again where the worker no longer knows it, and never silently."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator

from traforo.sdk import answers, errors, pauses, places, requests, transports
from traforo.sdk._async import clients, edges

WATCH_SECONDS = 30.0
"""How long the server holds a request for changes that have not happened yet."""


class Watch:
    """One directory that is watched. A worker keeps changes in memory: started anew, it knows no watch of before."""

    def __init__(
        self,
        client: clients.AsyncClient,
        place: requests.Place,
        path: str | bytes | os.PathLike[str],
        *,
        recursive: bool,
        user: str | None,
    ) -> None:
        self._client = client
        self._place = place
        self._path = os.fsdecode(path)
        self._body = {**requests.path_body(path, user), "recursive": recursive}
        self._url: str | None = None

    async def open(self) -> None:
        """Begin to watch. Raises `NotFound` and its like."""
        url, token = f"{self._place.url}/files/watches", await self._client.credential(self._place)
        response = await self._client.call("POST", url, token=token, body=self._body, timeout=None)
        watch_id = answers.field(answers.document(response.content), "watch_id", str)
        self._url = f"{url}/{requests.checked_id(watch_id)}"

    async def close(self) -> None:
        """Watch no longer."""
        if self._url is not None:
            with contextlib.suppress(errors.TraforoError):
                await self._client.call("DELETE", self._url, token=await self._client.credential(self._place))

    async def changes(self) -> AsyncGenerator[places.Change]:
        """Give out changes until there will be no more. What may have been missed is told as `overflow`."""
        cursor, outage = 0, pauses.Outage()
        while True:
            try:
                page = await self._next(cursor)
            except errors.Lost:
                return
            except pauses.TRANSIENT:
                pause = outage.pause(time.monotonic())
                if pause is None:
                    raise
                await edges.sleep(pause)
                continue
            outage.over()
            cursor = page.next_cursor
            if page.overflow:
                yield places.Change(cursor, "overflow", self._path, "directory", None)
            for change in page.found:
                yield change
            if page.ended:
                return

    async def _next(self, cursor: int) -> places.Changes:
        """Return the next page; one that says that changes were lost, where the watch had to be made again."""
        try:
            if self._url is not None:
                return await self._page(cursor)
        except errors.NotFound as error:
            if error.fields.get("kind") != "watch":
                raise
            self._url = None
        try:
            await self.open()  # if its answer is lost there is one too many, which the worker forgets in minutes
        except errors.NotFound as error:
            if error.fields.get("kind") != "file":
                raise
            return places.Changes((), 0, overflow=True, ended=True)  # the directory has gone while nobody watched
        return places.Changes((), 0, overflow=True, ended=False)

    async def _page(self, cursor: int) -> places.Changes:
        query = requests.query_string({"cursor": cursor, "wait": WATCH_SECONDS})
        token, limit = await self._client.credential(self._place), WATCH_SECONDS + transports.WAIT_MARGIN
        response = await self._client.call("GET", f"{self._url}{query}", token=token, timeout=limit)
        return places.changes(answers.document(response.content))
