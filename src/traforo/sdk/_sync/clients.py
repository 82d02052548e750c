# Written by tools/async_to_sync.py. Change _async/clients.py instead.
"""The connection to one server: requests, redirects, credentials. It knows no sandboxes, only where requests go.

A request is sent again by itself only where that cannot do anything twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from traforo.sdk import answers, errors, requests, results, transports
from traforo.sdk._sync import edges

LINES = "application/x-ndjson"
"""Media type of JSON lines."""
DEFAULT_TIMEOUT = 60.0
"""Seconds to wait for an answer that itself waits for nothing."""
_REDIRECTS = frozenset({307, 308})


class Client:
    """One server and a pool of connections to it and its workers, shared by any number of sandboxes.

    Args:
        url: Of the control plane, or of a worker; default TRAFORO_URL, else `http://127.0.0.1:8080`.
        token: A JWT, or a function that mints one for each request (a server in `prod` mode takes a token for one
            create); default TRAFORO_TOKEN, else none.
        timeout: Seconds to wait for an answer, commands that are waited for apart.
        http: An HTTP client of your own, with proxies or certificates for instance. It stays yours to close.

    Example:
        ```python
        with Client() as client:
            with Sandbox.create(client=client) as sandbox:
                print((sandbox.exec("echo one")).stdout)
            with Sandbox.create(client=client) as sandbox:
                print((sandbox.exec("echo two")).stdout)
        ```
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: edges.TokenSource = None,
        timeout: float = DEFAULT_TIMEOUT,
        http: httpx2.Client | None = None,
    ) -> None:
        self.url = requests.base_url(url, os.environ)
        """The server's URL, without a slash at the end."""
        self._token = token if token is not None else os.environ.get("TRAFORO_TOKEN")
        self._timeout = timeout
        self._http = http
        self._owned = http is None

    @property
    def direct(self) -> bool:
        """Whether connections are this client's own, so that it may make others beside HTTP: not with `http`."""
        return self._owned

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. A later request opens new ones."""
        if self._owned and self._http is not None:
            http, self._http = self._http, None
            http.close()

    def create(self, body: Mapping[str, Any]) -> results.Created:
        """Create a sandbox: ask the server, and go where it sends the request."""
        url = f"{self.url}/sandboxes"
        token = edges.minted(self._token)
        headers = {"Idempotency-Key": uuid.uuid4().hex}  # a worker makes one sandbox of it, however often it is asked
        for _ in range(requests.MAX_REDIRECTS + 1):
            # The placement in the URL is the worker's credential; the token stays with the server it was given for.
            own = token if requests.same_origin(url, self.url) else None
            response = self.call("POST", url, token=own, body=body, headers=headers, repeat=True)
            if response.status_code not in _REDIRECTS:
                return answers.created(answers.document(response.content), requests.origin(url))
            url = requests.redirected(url, response.headers.get("location"))
        raise errors.BadAnswer(f"cannot create a sandbox: redirected more than {requests.MAX_REDIRECTS} times")

    def locate(self, sandbox_id: str, token: str | None) -> tuple[requests.Place, results.SandboxInfo]:
        """Find out which worker has a sandbox. `token` is the sandbox's own, if there is one."""
        url = f"{self.url}/sandboxes/{requests.checked_id(sandbox_id)}"
        credential = token or edges.minted(self._token)
        for _ in range(requests.MAX_REDIRECTS + 1):
            response = self.call("GET", url, token=credential, repeat=True)
            if response.status_code not in _REDIRECTS:
                info = answers.sandbox(answers.document(response.content))
                return requests.sandbox_place(requests.origin(url), info.sandbox_id, token), info
            url = requests.redirected(url, response.headers.get("location"))
        raise errors.BadAnswer(
            f"cannot find sandbox {sandbox_id!r}: redirected more than {requests.MAX_REDIRECTS} times"
        )

    def list(self, state: str | None, limit: int | None) -> results.SandboxList:
        """Return the caller's sandboxes, newest first."""
        found: list[results.SandboxInfo] = []
        missing: set[str] = set()
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = requests.page_size(limit, len(found))
            query = requests.query_string({"state": state, "limit": size, "cursor": cursor})
            token = edges.minted(self._token)
            response = self.call("GET", f"{self.url}/sandboxes{query}", token=token, repeat=True)
            page, cursor = answers.sandboxes(answers.document(response.content))
            found += page
            missing.update(page.missing_workers)
            if cursor is None or not page:
                break
        return results.SandboxList(found[:limit], sorted(missing))

    def credential(self, place: requests.Place) -> str | None:
        """Return the token for a request about one sandbox."""
        return place.token or edges.minted(self._token)

    def call(
        self,
        method: str,
        url: str,
        *,
        token: str | None,
        body: Mapping[str, Any] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = -1.0,
        repeat: bool = False,
    ) -> httpx2.Response:
        """Send a request and return the whole answer.

        Args:
            method: HTTP method.
            url: Absolute URL.
            token: Credential, if any.
            body: JSON object to send.
            content: Raw body to send.
            headers: Further headers.
            timeout: Seconds to wait for the answer; None waits for ever, -1 is the client's own.
            repeat: Send it once more when the connection broke: for requests that may happen twice.

        Raises:
            TraforoError: What an answer of 400 or above says, or that there was none.
        """
        sent = {**requests.bearer(token), **(headers or {})}
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        for attempt in (0, 1):
            try:
                response = self._pool().request(
                    method, url, content=content, headers=sent, timeout=self._limits(timeout)
                )
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                problem = transports.translated(error, method, url)
                if attempt or not repeat or isinstance(problem, errors.RequestTimedOut):
                    raise problem from error
                continue
            if response.is_error:
                raise answers.error(response.status_code, response.content, response.headers.get("x-request-id"))
            return response
        raise AssertionError("unreachable: the second attempt returns or raises")

    @contextlib.contextmanager
    def stream(
        self, url: str, *, token: str | None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """Send a GET and hand out the answer, its body still to be read with `blocks`."""
        sent = {**requests.bearer(token), **(headers or {})}
        request = self._pool().build_request("GET", url, headers=sent, timeout=self._limits(-1.0))
        try:
            response = self._pool().send(request, stream=True)
            try:
                if response.is_error:
                    content = response.read()
                    raise answers.error(response.status_code, content, response.headers.get("x-request-id"))
                yield response
            finally:
                response.close()
        except httpx2.HTTPError as error:
            raise transports.translated(error, "GET", url) from error

    def lines(self, url: str, *, token: str | None) -> Generator[bytes]:
        """Send a GET for JSON lines and give out each as it comes. Half a line at a broken end is none.

        Raises `BadAnswer` where the server gives no lines.
        """
        try:
            with self.stream(url, token=token, headers={"Accept": LINES}) as response:
                if not response.headers.get("content-type", "").startswith(LINES):
                    raise errors.BadAnswer("the server answered with something else than lines")
                rest: list[bytes] = []
                for block in response.iter_raw():
                    *whole, last = block.split(b"\n")
                    if whole:
                        whole[0] = b"".join([*rest, whole[0]])
                        rest = []
                    rest.append(last)
                    for line in whole:
                        if line:
                            yield line
        except errors.NotFound as error:
            if not answers.is_missing_route(error):
                raise
            raise errors.BadAnswer("the server has no such stream", status=error.status) from error

    def _pool(self) -> httpx2.Client:
        if self._http is None:
            self._http = edges.http_client()
        return self._http

    def _limits(self, timeout: float | None) -> httpx2.Timeout:
        return transports.timeouts(self._timeout if timeout == -1.0 else timeout)
