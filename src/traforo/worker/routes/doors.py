"""Who may come in: from the headers of a request to a principal, in the three ways a worker is called.

What a principal may touch is decided by `traforo.api.principals`, and checked where the sandbox is read.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection

from traforo.api import principals, replays, tokens
from traforo.domain import clocks, errors


class Door:
    """Checks credentials for one worker. `guard` remembers the tokens that creates have used up."""

    def __init__(
        self, *, authority: tokens.Authority, guard: replays.ReplayGuard, worker_id: str, clock: clocks.Clock
    ) -> None:
        self._authority = authority
        self._guard = guard
        self._internal = replays.ReplayGuard()
        self._worker_id = worker_id
        self._clock = clock

    def creator(self, connection: HTTPConnection, placement: str | None) -> principals.Principal:
        """Return who creates, by placement or with a client's token. Its `jti` is used up by `use`, later.

        Raises `Unauthenticated`; also for a placement that was made for another worker.
        """
        return principals.creator(
            self._authority, authorization=_authorization(connection), placement=placement, worker_id=self._worker_id
        )

    def use(self, principal: principals.Principal) -> None:
        """Use up the token of a creator. Raises `Unauthenticated` if it was, `RateLimited` if too many are."""
        if principal.jti is not None:
            self._guard.use(principal.jti, principal.expires_at, self._clock.now())

    def caller(self, connection: HTTPConnection) -> principals.Principal:
        """Return who calls a route that is about no one sandbox. Raises `Unauthenticated`."""
        if self._authority.mode == "dev":
            return principals.DEV
        if principals.ON_BEHALF in connection.headers:
            return self._control_plane(connection)
        return principals.client(self._authority, _authorization(connection))

    def opener(self, connection: HTTPConnection, sandbox_id: str) -> principals.Principal:
        """Return who calls a route of this sandbox (canonical id). Raises `Unauthenticated`."""
        if self._authority.mode == "dev":
            return principals.DEV
        if principals.ON_BEHALF in connection.headers:
            return self._control_plane(connection)
        return principals.opener(self._authority, _authorization(connection), sandbox_id)

    def _control_plane(self, connection: HTTPConnection) -> principals.Principal:
        internal = principals.worker(
            self._authority,
            self._internal,
            self._clock.now(),
            authorization=_authorization(connection),
            worker_id=self._worker_id,
        )
        client_id = connection.headers[principals.ON_BEHALF]
        if not client_id or len(client_id) > tokens.MAX_ID:
            raise errors.InvalidRequest("cannot act on behalf of nobody", field=principals.ON_BEHALF)
        return principals.Principal(client_id, internal.via, jti=internal.jti, expires_at=internal.expires_at)


def _authorization(connection: HTTPConnection) -> str | None:
    return connection.headers.get("authorization")
