"""`traforo token`."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from traforo.cli import durations, printers
from traforo.domain import clocks
from traforo.settings import control, sources

SECONDS = 3600.0
"""Long enough for a sitting with one sandbox, and short enough that a token in a history file is soon worth nothing."""


def token(
    client: str,
    /,
    *,
    ttl: durations.Option = None,
    file: Annotated[Path | None, Parameter(help="YAML file of settings of the control plane.")] = None,
) -> None:
    """Sign a token for a server in prod mode.

    With the secret of the server, from TRAFORO_JWT_SECRET or its file of settings: `export TRAFORO_TOKEN=$(traforo
    token me)`. Each token creates one sandbox; sandboxes belong to their client, and any of its tokens opens them.

    Args:
        client: Name of the client, which becomes the owner of what it creates.
        ttl: Time until the token opens nothing any more, such as `90` or `12h` [default: 1h].
        file: YAML file of settings of the control plane.
    """
    from joserfc import jwk, jwt

    from traforo.api import tokens

    settings = sources.load(control.ControlSettings, {}, file, os.environ).auth
    secret = settings.jwt_secret.get_secret_value()
    if not secret:
        hint = "set TRAFORO_JWT_SECRET to the secret of the server, or name its file of settings with --file"
        raise printers.UsageError("no secret to sign with", hint)
    now = int(time.time())
    said = {
        "client_id": client,
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": now,
        "exp": now + (SECONDS if ttl is None else ttl),
        "jti": secrets.token_hex(16),
    }
    signed = jwt.encode({"alg": "HS256"}, said, jwk.OctKey.import_key(secret))
    tokens.Authority(settings, clocks.SystemClock()).verify_client(f"Bearer {signed}")  # no token that is refused
    print(signed)
