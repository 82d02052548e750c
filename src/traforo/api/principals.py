"""Who is calling: from the credential of a request to a principal, and what a principal may touch.

Everything a route needs is one call. In `dev` mode every caller is the same nameless principal, who may touch
whatever it can name. Ownership is decided here, on values; reading them is the caller's part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from traforo.api import replays, tokens
from traforo.domain import errors

ON_BEHALF = "x-traforo-client-id"
"""Header by which the control plane names the client it asks for; it counts with an internal token alone."""

Via = Literal["dev", "jwt", "placement", "sandbox_token", "internal"]
"""Which credential it was."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential was checked."""

    client_id: str | None
    """None in `dev` mode, and for workers."""
    via: Via
    sandbox_id: str | None = None
    """The one sandbox that a sandbox token opens."""
    jti: str | None = None
    """Id of the token, where it was, or is to be, used up."""
    expires_at: float = 0.0
    """Unix seconds until which that `jti` has to be remembered."""

    def may_open(self, sandbox_id: str, owner: str | None) -> bool:
        """Tell whether this caller may use a sandbox of `owner`."""
        if self.via == "dev":
            return True
        if self.client_id is None or self.client_id != owner:
            return False
        return self.sandbox_id is None or self.sandbox_id == sandbox_id

    def check(self, sandbox_id: str, owner: str | None) -> None:
        """Raise `Forbidden` unless `may_open`."""
        if not self.may_open(sandbox_id, owner):
            raise errors.Forbidden(
                "cannot open the sandbox: it belongs to another client", kind="sandbox", id=sandbox_id
            )


DEV = Principal(client_id=None, via="dev")
"""Every caller in `dev` mode."""


def client(authority: tokens.Authority, authorization: str | None) -> Principal:
    """Return the caller of a route that is about no one sandbox (list; create, at the control plane).

    Its `jti` is *not* used up here. Raises `Unauthenticated`.
    """
    if authority.mode == "dev":
        return DEV
    claims = authority.verify_client(authorization)
    return Principal(claims.client_id, "jwt", jti=claims.jti, expires_at=claims.expires_at)


def creator(
    authority: tokens.Authority, *, authorization: str | None, placement: str | None, worker_id: str
) -> Principal:
    """Return the caller of a create at a worker: by placement, or with a client's token directly.

    Its `jti` is still to be used up (`replays.ReplayGuard`), when the request was checked and before anything is made.
    Raises `Unauthenticated`.
    """
    if authority.mode == "dev":
        return DEV
    if placement is None:
        return client(authority, authorization)
    placed = authority.verify_placement(placement, worker_id)
    return Principal(placed.client_id, "placement", jti=placed.jti, expires_at=placed.token_expires_at)


def opener(authority: tokens.Authority, authorization: str | None, sandbox_id: str) -> Principal:
    """Return the caller of a route below `/sandboxes/{id}`: with the token of that sandbox, or any of the client's.

    Ownership is still to be checked: `Principal.check`. Raises `Unauthenticated`.
    """
    if authority.mode == "dev":
        return DEV
    if tokens.is_sandbox_token(authorization):
        grant = authority.verify_sandbox_token(authorization, sandbox_id)
        return Principal(grant.client_id, "sandbox_token", sandbox_id=sandbox_id)
    return client(authority, authorization)


def worker(
    authority: tokens.Authority,
    guard: replays.ReplayGuard,
    now: float,
    *,
    authorization: str | None,
    worker_id: str,
) -> Principal:
    """Return the caller of an internal route and use up its `jti`. Raises `Unauthenticated`, `RateLimited`."""
    if authority.mode == "dev":
        return DEV
    internal = authority.verify_internal(authorization, worker_id)
    guard.use(internal.jti, internal.expires_at, now)
    return Principal(None, "internal", jti=internal.jti, expires_at=internal.expires_at)
