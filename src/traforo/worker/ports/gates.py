"""Who may reach a port: the credentials of a request for one, which are more than those of the API.

A client's token, the token of the sandbox, or its *traffic token*, which opens ports and nothing else and so can be
given to a browser. A credential of ours is never shown to the server behind the port; one that is none of ours is its
business. Whether a port is public is told by the caller of this module.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from traforo.api import claims, principals, tokens
from traforo.domain import clocks, errors
from traforo.worker.ports import heads, targets

CACHE_SECONDS = 60.0
"""How long a token that was verified is believed without being verified again; never beyond its end."""
MAX_CACHED = 1024
"""Most tokens that are remembered so."""

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_MAX_JWTS = 4
"""Most tokens of one `Authorization` that are looked at; with more of them it is not forwarded."""
_FOREIGN = frozenset({"missing", "malformed", "algorithm", "signature"})
"""Reasons for which a credential was refused that show that nobody here has signed it."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A request that may reach a port."""

    authorization: bool
    """Whether its `Authorization` is none of ours, and is for the server."""
    principal: principals.Principal | None
    """Whose ownership of the sandbox is still to be checked; None where a traffic token or nothing was needed."""
    cookie: str | None = None
    """The traffic token that a browser has to remember, because it came in the URL."""


class Gate:
    """Checks credentials for the ports of one worker."""

    def __init__(self, authority: tokens.Authority, clock: clocks.Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[principals.Principal, float]] = {}

    def check(self, request: heads.Request, target: targets.Target, *, public: bool) -> Pass:
        """Let a request pass. Raises `Unauthenticated`, `Forbidden`."""
        if self._authority.mode == "dev":
            return Pass(authorization=True, principal=None)
        expected = self._authority.traffic_token(target.sandbox_id)
        presented = request.token or target.token
        if presented is not None and expected is not None:
            if not _same(presented, expected):
                raise claims.refused("signature", "it is not the traffic token of this sandbox")
            return Pass(self._foreign(request, target), None, cookie=target.token)
        if public:
            return Pass(self._foreign(request, target), None)
        if request.cookie_token is not None and expected is not None and _same(request.cookie_token, expected):
            _check_page(request)
            return Pass(self._foreign(request, target), None)
        return Pass(authorization=False, principal=self._principal(request.authorization, target.sandbox_id))

    def _principal(self, authorization: str | None, sandbox_id: str) -> principals.Principal:
        """Return who calls. Raises `Unauthenticated`."""
        key = (authorization or "", sandbox_id)
        now = self._clock.now()
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        if tokens.is_sandbox_token(authorization):
            grant = self._authority.verify_sandbox_token(authorization, sandbox_id)
            found = principals.Principal(grant.client_id, "sandbox_token", sandbox_id=sandbox_id)
            expires_at = grant.expires_at
        else:
            found = principals.client(self._authority, authorization)
            expires_at = found.expires_at
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
        self._known[key] = (found, min(expires_at, now + CACHE_SECONDS))
        return found

    def _foreign(self, request: heads.Request, target: targets.Target) -> bool:
        """Tell whether an `Authorization` is none of ours, good or bad."""
        if request.authorization is None:
            return False
        expected = self._authority.traffic_token(target.sandbox_id)
        if expected is not None and expected in request.authorization:
            return False
        found = [f"Bearer {one}" for one in _JWT.findall(request.authorization)]  # whatever stands around one
        return all(self._is_foreign(one, target) for one in found[:_MAX_JWTS]) and len(found) <= _MAX_JWTS

    def _is_foreign(self, authorization: str, target: targets.Target) -> bool:
        try:
            if tokens.is_sandbox_token(authorization):
                return False
            self._principal(authorization, target.sandbox_id)
        except errors.Unauthenticated as error:
            return error.fields.get("reason") in _FOREIGN
        return False


def cookie(token: str, target: targets.Target, scheme: str) -> heads.Header:
    """Return the header by which a browser remembers a traffic token, for the port that it came for."""
    path = target.prefix.decode("latin-1") or "/"
    secure = "; Secure" if scheme == "https" else ""
    text = f"{heads.TRAFFIC_COOKIE.decode()}={token}; Path={path}; HttpOnly; SameSite=Lax{secure}"
    return b"Set-Cookie", text.encode("latin-1")


def _same(presented: str, expected: str) -> bool:
    return hmac.compare_digest(presented.encode(), expected.encode())


def _check_page(request: heads.Request) -> None:
    """Raise `Forbidden` when a page of another origin makes a browser use its cookie.

    Sandboxes are one site to a browser, so `SameSite` does not help; scripts and images are asked for without `Origin`.
    """
    if request.site in {b"same-site", b"cross-site"} and not (request.navigates and request.method == b"GET"):
        raise errors.Forbidden("cannot serve a web page of another origin with a cookie")
    origin = next((value for name, value in request.kept if name.lower() == b"origin"), None)
    if origin is not None and origin.partition(b"://")[2].lower() != request.host.lower():
        raise errors.Forbidden("cannot serve a web page of another origin with a cookie")
