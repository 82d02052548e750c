"""Reading what a token says: values from a stranger, each checked and refused in words that repeat none of them.
Pure.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping
from typing import Any

from traforo.domain import errors

MAX_BYTES = 8 * 1024
"""Longest token that is looked at."""
MAX_ID = 128
"""Most characters of `client_id` and `jti`."""
LEEWAY = 5.0
"""Seconds that `iat` may be in the future: clocks differ."""
REASONS = (
    "missing",
    "malformed",
    "algorithm",
    "signature",
    "claims",
    "issuer",
    "audience",
    "expired",
    "not_yet_valid",
    "wrong_subject",
    "replayed",
)
"""Every value of field `reason` of an `Unauthenticated`, in order of the checks; also the values of a metric's
label."""


def bearer(authorization: str | None) -> str:
    """Return the token in an `Authorization` header. Raises `Unauthenticated`."""
    if not authorization:
        raise refused("missing", "header 'Authorization: Bearer <token>' is missing")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise refused("malformed", "header 'Authorization' is not 'Bearer <token>'")
    return token


def check_size(token: str) -> None:
    """Refuse a token before it is decoded."""
    if len(token) > MAX_BYTES or not token.isascii():
        raise refused("malformed", f"it is longer than {MAX_BYTES} bytes, or not ASCII")


def check_constants(claims: Mapping[str, Any], *, issuer: str | None, audience: str) -> None:
    """Check `iss` (unless None is expected) and `aud`, which may be a list."""
    if issuer is not None and not _same(claims.get("iss"), issuer):
        raise refused("issuer", "claim 'iss' is not the configured issuer")
    named = claims.get("aud")
    if not any(_same(one, audience) for one in (named if isinstance(named, list) else [named])):
        raise refused("audience", "claim 'aud' is not the configured audience")


def check_times(claims: Mapping[str, Any], now: float) -> tuple[float, float]:
    """Check `iat`, `exp` and, where it is there, `nbf`; return the first two."""
    issued_at, expires_at = moment(claims, "iat"), moment(claims, "exp")
    if expires_at <= now:
        raise refused("expired", "it has expired")
    if issued_at > now + LEEWAY:
        raise refused("not_yet_valid", f"claim 'iat' is more than {LEEWAY:g} seconds in the future")
    if "nbf" in claims and moment(claims, "nbf") > now + LEEWAY:
        raise refused("not_yet_valid", "claim 'nbf' is in the future")
    return issued_at, expires_at


def check_subject(claims: Mapping[str, Any], expected: str) -> None:
    """Check `sub`."""
    if not _same(claims.get("sub"), expected):
        raise refused("wrong_subject", "claim 'sub' names another")


def identifier(claims: Mapping[str, Any], name: str) -> str:
    """Return a name: short, printable text."""
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not value.isprintable():
        raise refused("claims", f"claim {name!r} is not a text of 1 to {MAX_ID} printable characters")
    return value


def moment(claims: Mapping[str, Any], name: str) -> float:
    """Return a time in Unix seconds."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise refused("claims", f"claim {name!r} is not a number of seconds since 1970")
    return float(value)


def refused(reason: str, why: str) -> errors.Unauthenticated:
    """Make the error of a token that does not hold; `reason` is one of `REASONS`."""
    return errors.Unauthenticated(f"cannot accept the token: {why}", reason=reason)


def _same(found: object, expected: str) -> bool:
    return isinstance(found, str) and hmac.compare_digest(found.encode(errors="replace"), expected.encode())
