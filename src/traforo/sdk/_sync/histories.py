# Written by tools/async_to_sync.py. Change _async/histories.py instead.
"""What happened to a sandbox and what its commands wrote, read page by page, or on and on until it has ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from traforo.sdk import answers, errors, observations, pauses, requests, transports
from traforo.sdk._sync import clients, edges

EVENT_SECONDS = 30.0
"""How long the server holds a request for events that have not happened yet."""


class History:
    """Of one sandbox. A connection that broke is made anew, and nothing comes twice."""

    def __init__(self, client: clients.Client, place: requests.Place) -> None:
        self._client = client
        self._place = place

    def events(self, cursor: int | str | None, *, follow: bool) -> Generator[observations.Event]:
        """Give out events after the one with this cursor."""
        outage = pauses.Outage()
        position: int | str | None = cursor
        while True:
            query = requests.query_string({"cursor": position, "wait": EVENT_SECONDS if follow else None})
            url, limit = f"{self._place.url}/events{query}", EVENT_SECONDS + transports.WAIT_MARGIN
            try:
                response = self._client.call("GET", url, token=self._token(), timeout=limit)
            except pauses.TRANSIENT:
                pause = outage.pause(time.monotonic())
                if pause is None:
                    raise
                edges.sleep(pause)
                continue
            outage.over()
            found, following = observations.events(answers.document(response.content))
            yield from found
            position = following or position
            if not follow and (not found or following is None):
                return
            if follow and not found and self._has_ended():
                return

    def logs(self, cursor: int | str | None, stream: str | None, *, follow: bool) -> Generator[observations.LogEntry]:
        """Give out entries of the log after the one with this cursor, those of one stream or all."""
        outage = pauses.Outage()
        position: int | str | None = cursor
        while True:
            query = {"cursor": position, "stream": stream, "follow": "true" if follow else None}
            url = f"{self._place.url}/logs{requests.query_string(query)}"
            try:
                if not follow:
                    response = self._client.call("GET", url, token=self._token(), repeat=True)
                    found, following = observations.logs(answers.document(response.content))
                    for entry in found:
                        yield entry
                    if following in {None, "", position}:  # a page may be empty and still not be the last
                        return
                    position = following
                    continue
                with contextlib.closing(self._client.lines(url, token=self._token())) as lines:
                    for line in lines:
                        outage.over()
                        body = answers.document(line)
                        if body.get("type") == "heartbeat":
                            continue
                        entry = observations.log_entry(body)
                        position = entry.cursor
                        yield entry
                if self._has_ended():
                    return
                problem: errors.TraforoError = errors.ConnectionFailed("the logs stopped")
            except pauses.TRANSIENT as error:
                problem = error
            pause = outage.pause(time.monotonic())
            if pause is None:
                raise problem
            edges.sleep(pause)

    def _has_ended(self) -> bool:
        response = self._client.call("GET", self._place.url, token=self._token(), repeat=True)
        return answers.sandbox(answers.document(response.content)).ended_at is not None

    def _token(self) -> str | None:
        return self._client.credential(self._place)
