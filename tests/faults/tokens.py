"""Tokens as clients of a fleet in `prod` mode bring them."""

from __future__ import annotations

import time
import uuid

from joserfc import jwk, jwt


def client(secret: str, client_id: str = "someone", *, seconds: float = 600) -> str:
    """Sign a token of a client that has not been used yet."""
    now = time.time()
    claims = {
        "client_id": client_id,
        "iss": "traforo",
        "aud": "traforo-api",
        "iat": now,
        "exp": now + seconds,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, jwk.OctKey.import_key(secret.encode()))
