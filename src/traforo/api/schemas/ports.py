"""Ports of sandboxes: what listens, how it is reached from outside, and who may."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from traforo.api.schemas import fields

PortNumber = Annotated[int, Field(ge=1, le=65535, examples=[8000])]
"""Number of a TCP port."""


class PortQuery(fields.QueryModel):
    """How a port is to be reached."""

    protocol: Literal["http", "https", "ws", "wss"] | None = None
    """Scheme of the URLs; by default that of the worker's own URL."""


class PortPublish(fields.RequestModel):
    """Who may reach a port."""

    public: bool
    """Whether no credential is asked for."""


class Port(fields.AnswerModel):
    """How a port is reached from outside. Whether anything listens there is not looked at."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    port: PortNumber
    protocol: Literal["http", "https", "ws", "wss"]
    url: str
    """The path form: paths are added to it."""
    host_url: str
    """The host form, which browsers want: an origin of its own."""
    token: str | None
    """Traffic token of the sandbox, which opens its ports and nothing else; null in `dev` mode."""
    public: bool
    """Whether no credential is asked for."""


class ListeningPort(fields.AnswerModel):
    """A TCP socket that waits for connections."""

    port: PortNumber
    address: Annotated[str, Field(examples=["127.0.0.1"])]
    public: bool


class PortPage(fields.AnswerModel):
    """Everything that listens in a sandbox, by port."""

    ports: list[ListeningPort]
