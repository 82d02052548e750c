"""Settings that both processes share: the form of a group, the log, credentials.

A field's docstring is its description in the reference: what it is, its unit, and why the default is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from traforo.settings import addresses, quantities

MIN_SECRET_BYTES = 32
"""HMAC with SHA-256 is only as strong as its key: RFC 7518 section 3.2 asks for one as long as the hash."""
INTERNAL_AUDIENCE = "traforo-internal"
"""Audience of the tokens between worker and control plane; never that of a client's."""

Mode = Literal["prod", "dev"]
"""Whether callers need a credential."""


def _listen(text: str) -> str:
    addresses.parse(text)
    return text


def _base_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"http", "https"} or not rest or not text.isascii():
        raise ValueError("a base URL is 'http://host[:port]' or 'https://host[:port]'")
    host = rest.removesuffix("/")
    if not host or any(character <= " " or character in "/?#@" for character in host):
        raise ValueError("a base URL has no path, query or user")
    return f"{scheme}://{host}"


def _secret(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"a JWT secret has at least {MIN_SECRET_BYTES} bytes (make one with 'openssl rand -hex 32')")
    return value


def _audience(text: str) -> str:
    if text == INTERNAL_AUDIENCE:
        raise ValueError(f"the audience of clients cannot be {INTERNAL_AUDIENCE!r}, which workers use")
    return text


Listen = Annotated[str, AfterValidator(_listen)]
"""`host:port`, checked; `addresses.parse` reads it."""
BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""`http[s]://host[:port]` without a path, checked."""
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A short name that is safe in URLs, file names and labels."""


class Group(BaseModel):
    """A frozen set of settings in which an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an input may be a secret
    )


class LogSettings(Group):
    """What is logged, and where."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe event that is written. One line a request is `info`."""
    file: Path | None = None
    """File to write to instead of stderr, which is the default because a service manager keeps it already."""
    rotate_size: Annotated[quantities.Bytes, Field(ge=4096)] = 64 * 1024 * 1024
    """Bytes after which the file is rotated: small enough to open in an editor."""
    max_rotations: Annotated[int, Field(ge=0, le=1000)] = 5
    """Rotated files that are kept beside the current one; older ones are removed, so that logs cannot fill a disk."""


class AuthSettings(Group):
    """Who may call. Without a secret the process runs in `dev` mode: no credential, access by id."""

    jwt_secret: Annotated[SecretStr, AfterValidator(_secret)] = SecretStr("")
    """Secret of the HS256 tokens, at least 32 bytes; shared by the control plane, its workers and whoever issues client
    tokens. Empty means `dev` mode."""
    jwt_issuer: Annotated[str, Field(min_length=1, max_length=256)] = "traforo"
    """Claim `iss` that a client token must carry."""
    jwt_audience: Annotated[str, AfterValidator(_audience), Field(min_length=1, max_length=256)] = "traforo-api"
    """Claim `aud` that a client token must carry."""

    @property
    def mode(self) -> Mode:
        """`prod` when a secret is configured, else `dev`."""
        return "prod" if self.jwt_secret.get_secret_value() else "dev"


class ProcessSettings(Group):
    """What control plane and worker have in common."""

    env_prefix: ClassVar[str]
    """What the names of its environment variables begin with."""

    log: LogSettings = LogSettings()
    """Logging."""
    auth: AuthSettings = AuthSettings()
    """Credentials."""

    @classmethod
    def places(cls, environ: Mapping[str, str], uid: int) -> dict[str, object]:
        """Return the defaults that depend on who runs the process, by field name."""
        raise NotImplementedError
