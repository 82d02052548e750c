"""Tokens: who signed what, for whom, until when. JWT with HS256 and nothing else.

Five kinds, told apart by their `typ` header and, so that none can pass for another, by key and audience as well:

| kind | `typ` | key | says |
|---|---|---|---|
| client | `JWT` | the secret | this caller is `client_id`; once for a create, as `jti` says |
| internal | `JWT` | the secret | this is worker `sub`; once |
| placement | `traforo-placement+jwt` | derived | `client_id` may create one sandbox on worker `sub` |
| sandbox | `traforo-sandbox+jwt` | derived | whoever holds this may use sandbox `sub` |
| file | `traforo-file+jwt` | derived | whoever holds this may read, or write, one file of sandbox `sub` |

In `dev` mode there is no secret: the `sign_…` methods return None and the `verify_…` methods must not be called. Tokens
of files are the exception: what they limit holds in `dev` mode too, with a key that ends with the process. What a
caller is told of a refused token never repeats any part of it. The one-use rule itself is in `replays`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import ulid
from joserfc import errors as jose
from joserfc import jwk, jws, jwt

from traforo.api import claims
from traforo.domain import clocks, errors
from traforo.settings import groups

MAX_ID = claims.MAX_ID
"""Most characters of `client_id` and `jti`."""
PLACEMENT_SECONDS = 60.0
"""How long a placement holds: a redirect is followed at once."""
INTERNAL_SECONDS = 45.0
"""How long an internal token holds."""

_ALGORITHM: Final = "HS256"
_PLACEMENT: Final = "traforo-placement"
_SANDBOX: Final = "traforo-sandbox"
_FILE: Final = "traforo-file"
_TRAFFIC: Final = "traforo-traffic"
_ISSUER: Final = "traforo"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a client's token says. Times are Unix seconds."""

    client_id: str
    jti: str
    issued_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Placement:
    """What a placement says."""

    client_id: str
    jti: str
    """Of the client's token: the id that is used up."""
    token_expires_at: float
    """Of the client's token, Unix seconds: until then its `jti` has to be remembered."""
    worker_id: str


@dataclass(frozen=True, slots=True)
class SandboxGrant:
    """What a sandbox token says."""

    sandbox_id: str
    client_id: str
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class FileGrant:
    """What the token of a file says."""

    sandbox_id: str
    client_id: str | None
    """Owner of the sandbox; None in `dev` mode."""
    method: str
    """`GET` or `PUT`."""
    path: bytes
    user: str | None
    """Whose rights are used; None is the image's default user."""
    max_bytes: int | None
    """Most bytes that may be written."""
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Internal:
    """What an internal token says."""

    worker_id: str
    jti: str
    expires_at: float
    """Unix seconds."""


class Authority:
    """Signs and verifies every kind of token with one secret."""

    def __init__(self, settings: groups.AuthSettings, clock: clocks.Clock) -> None:
        self.mode: groups.Mode = settings.mode
        self._clock = clock
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        secret = settings.jwt_secret.get_secret_value().encode()
        self._key = jwk.OctKey.import_key(secret) if secret else None
        self._placement_key = _derived(secret, _PLACEMENT) if secret else None
        self._sandbox_key = _derived(secret, _SANDBOX) if secret else None
        self._file_key = _derived(secret or os.urandom(32), _FILE)
        self._traffic_key = _purpose(secret, _TRAFFIC) if secret else None

    # ------------------------------------------------------------------------------------------------ clients

    def verify_client(self, authorization: str | None) -> Claims:
        """Check the `Authorization` header of a client. Raises `Unauthenticated`, whose `reason` is one of
        `claims.REASONS`.
        """
        token = claims.bearer(authorization)
        said = self._verified(token, self._key, kind=None)
        claims.check_constants(said, issuer=self._issuer, audience=self._audience)
        issued_at, expires_at = claims.check_times(said, self._clock.now())
        return Claims(claims.identifier(said, "client_id"), claims.identifier(said, "jti"), issued_at, expires_at)

    # --------------------------------------------------------------------------------------------- placements

    def sign_placement(self, client_id: str, jti: str, expires_at: float, worker_id: str) -> str | None:
        """Let a client create one sandbox on one worker; `expires_at` is that of the client's token."""
        now = self._clock.now()
        return self._signed(
            self._placement_key,
            _PLACEMENT,
            {
                "sub": worker_id,
                "client_id": client_id,
                "jti": jti,
                "token_exp": expires_at,
                "iat": now,
                "exp": min(expires_at, now + PLACEMENT_SECONDS),
            },
        )

    def verify_placement(self, token: str, worker_id: str) -> Placement:
        """Check a placement that was made for this worker. Raises `Unauthenticated`."""
        said = self._verified(token, self._placement_key, kind=_PLACEMENT)
        claims.check_constants(said, issuer=_ISSUER, audience=_PLACEMENT)
        claims.check_times(said, self._clock.now())
        claims.check_subject(said, worker_id)
        return Placement(
            client_id=claims.identifier(said, "client_id"),
            jti=claims.identifier(said, "jti"),
            token_expires_at=claims.moment(said, "token_exp"),
            worker_id=worker_id,
        )

    # ---------------------------------------------------------------------------------------------- sandboxes

    def sign_sandbox_token(self, sandbox_id: str, client_id: str, expires_at: float) -> str | None:
        """Let whoever holds the token use one sandbox.

        `expires_at` is the last moment at which the sandbox can live (its creation and the longest time limit): a token
        that ended with the first lease would lock its holder out after a renewal. That it ends when the sandbox does is
        checked where it is used, since a dead sandbox answers nobody.
        """
        said = {"sub": sandbox_id, "client_id": client_id, "iat": self._clock.now(), "exp": expires_at}
        return self._signed(self._sandbox_key, _SANDBOX, said)

    def verify_sandbox_token(self, authorization: str | None, sandbox_id: str) -> SandboxGrant:
        """Check an `Authorization` header that carries the token of this sandbox. Raises `Unauthenticated`, and
        `Forbidden` for that of another one.
        """
        said = self._verified(claims.bearer(authorization), self._sandbox_key, kind=_SANDBOX)
        claims.check_constants(said, issuer=_ISSUER, audience=_SANDBOX)
        _, expires_at = claims.check_times(said, self._clock.now())
        if said.get("sub") != sandbox_id:
            raise errors.Forbidden("cannot open the sandbox: the token is that of another one", kind="sandbox")
        return SandboxGrant(sandbox_id, claims.identifier(said, "client_id"), expires_at)

    # -------------------------------------------------------------------------------------------------- files

    def sign_file(self, grant: FileGrant) -> str:
        """Let whoever holds the token read or write one file."""
        said: dict[str, object] = {
            "sub": grant.sandbox_id,
            "method": grant.method,
            "path": base64.b64encode(grant.path).decode(),
            "iat": self._clock.now(),
            "exp": grant.expires_at,
        }
        optional = {"client_id": grant.client_id, "user": grant.user, "max_bytes": grant.max_bytes}
        said |= {name: value for name, value in optional.items() if value is not None}
        token = self._signed(self._file_key, _FILE, said)
        if token is None:
            raise errors.Internal("cannot sign: no key")
        return token

    def verify_file(self, token: str, sandbox_id: str) -> FileGrant:
        """Check a token for a file of this sandbox. Raises `Unauthenticated`."""
        said = self._verified(token, self._file_key, kind=_FILE)
        claims.check_constants(said, issuer=_ISSUER, audience=_FILE)
        _, expires_at = claims.check_times(said, self._clock.now())
        claims.check_subject(said, sandbox_id)
        try:
            path = base64.b64decode(said.get("path", ""), validate=True)
        except (ValueError, TypeError) as error:
            raise claims.refused("claims", "claim 'path' is not base64") from error
        max_bytes = said.get("max_bytes")
        return FileGrant(
            sandbox_id=sandbox_id,
            client_id=claims.identifier(said, "client_id") if "client_id" in said else None,
            method=claims.identifier(said, "method"),
            path=path,
            user=claims.identifier(said, "user") if "user" in said else None,
            max_bytes=max_bytes if isinstance(max_bytes, int) else None,
            expires_at=expires_at,
        )

    # ------------------------------------------------------------------------------------------------ traffic

    def traffic_token(self, sandbox_id: str) -> str | None:
        """Return what opens the ports of one sandbox, and nothing else; it holds for as long as the sandbox lives."""
        if self._traffic_key is None:
            return None
        return "traffic_" + hmac.digest(self._traffic_key, sandbox_id.encode(), hashlib.sha256).hex()

    # ------------------------------------------------------------------------------------------------ workers

    def sign_internal(self, worker_id: str) -> str | None:
        """Speak to the control plane as a worker, once."""
        now = self._clock.now()
        said = {
            "sub": worker_id,
            "aud": groups.INTERNAL_AUDIENCE,
            "iat": now,
            "exp": now + INTERNAL_SECONDS,
            "jti": str(ulid.ULID()),
        }
        return self._signed(self._key, None, said)

    def verify_internal(self, authorization: str | None, worker_id: str) -> Internal:
        """Check the `Authorization` header of this worker. Raises `Unauthenticated`."""
        said = self._verified(claims.bearer(authorization), self._key, kind=None)
        claims.check_constants(said, issuer=None, audience=groups.INTERNAL_AUDIENCE)
        issued_at, expires_at = claims.check_times(said, self._clock.now())
        if expires_at - issued_at > INTERNAL_SECONDS + claims.LEEWAY:
            raise claims.refused("claims", f"an internal token holds for at most {INTERNAL_SECONDS:g} seconds")
        claims.check_subject(said, worker_id)
        return Internal(worker_id, claims.identifier(said, "jti"), expires_at)

    # ----------------------------------------------------------------------------------------------- the rest

    def _signed(self, key: jwk.OctKey | None, kind: str | None, said: dict[str, object]) -> str | None:
        if key is None:
            return None
        if kind is None:
            return jwt.encode({"alg": _ALGORITHM}, said, key, algorithms=[_ALGORITHM])
        header = {"alg": _ALGORITHM, "typ": f"{kind}+jwt"}
        return jwt.encode(header, {"iss": _ISSUER, "aud": kind} | said, key, algorithms=[_ALGORITHM])

    def _verified(self, token: str, key: jwk.OctKey | None, kind: str | None) -> Mapping[str, Any]:
        """Check form, algorithm and signature, and return the claims."""
        if key is None:
            raise errors.Internal("cannot verify a token: no secret is configured")
        claims.check_size(token)
        try:
            decoded = jwt.decode(token, key, algorithms=[_ALGORITHM])
        except jose.BadSignatureError as error:
            raise claims.refused("signature", "its signature does not hold") from error
        except (jose.UnsupportedAlgorithmError, jose.SecurityWarning) as error:
            raise claims.refused("algorithm", f"only {_ALGORITHM} is accepted") from error
        except (jose.JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise claims.refused("malformed", "it is not a JWT") from error
        if kind is not None and decoded.header.get("typ") != f"{kind}+jwt":
            raise claims.refused("malformed", "it is a token of another kind")
        return decoded.claims


def is_sandbox_token(authorization: str | None) -> bool:
    """Tell, without trusting it, whether a header carries a sandbox token rather than a client's."""
    token = claims.bearer(authorization)
    claims.check_size(token)
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (jose.JoseError, ValueError, TypeError, RecursionError):
        return False
    return header.get("typ") == f"{_SANDBOX}+jwt"


def _derived(secret: bytes, purpose: str) -> jwk.OctKey:
    """Make a key for one purpose, so that a token of one kind can never pass for another."""
    return jwk.OctKey.import_key(_purpose(secret, purpose))


def _purpose(secret: bytes, purpose: str) -> bytes:
    return hmac.digest(secret, b"traforo/v1/" + purpose.encode(), hashlib.sha256)
