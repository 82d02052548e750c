"""Ports and paths as the server describes them: URLs of ports, matches of a search, changes. Records and how to read
them; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from traforo.sdk import answers


@dataclass(frozen=True, slots=True)
class PortUrl:
    """Where a port of a sandbox is reached from outside."""

    sandbox_id: str
    port: int
    protocol: str
    """`http`, `https`, `ws` or `wss`."""
    url: str
    """Below the path of the sandbox at its worker."""
    host_url: str | None
    """With a host name of its own, for what needs to be at the root of one."""
    token: str | None
    """Opens the sandbox's ports and nothing else: `X-Traforo-Traffic-Token`; None where none is asked for."""
    public: bool
    """Whether anybody may use it."""


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A TCP port that something in a sandbox listens on."""

    port: int
    address: str
    public: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A line in which a text was found."""

    path: str
    line: int
    """From 1."""
    column: int
    """From 1."""
    text: str


class Matches(tuple[Match, ...]):  # noqa: SLOT001 - a tuple can have no slot beside its items
    """What a search found: a tuple that knows whether it is whole."""

    truncated: bool
    """Whether there was more."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened below a directory that is watched."""

    cursor: int
    kind: str
    """`created`, `modified`, `attributes`, `deleted`, or `overflow`: changes were lost, look at everything again."""
    path: str
    type: str | None
    """`file` or `directory`, where that is known."""
    moved_from: str | None
    """Where it was before, for what was moved within the tree."""


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL that opens one path for one method without another credential."""

    url: str
    expires_at: datetime | None


def port_url(body: Mapping[str, Any]) -> PortUrl:
    """Read the URL of a port."""
    return PortUrl(
        sandbox_id=answers.string(body, "sandbox_id"),
        port=answers.field(body, "port", int),
        protocol=answers.string(body, "protocol"),
        url=answers.field(body, "url", str),
        host_url=answers.optional(body, "host_url", str),
        token=answers.optional(body, "token", str),
        public=bool(body.get("public")),
    )


def open_ports(body: Mapping[str, Any]) -> Sequence[OpenPort]:
    """Read the ports that are listened on."""
    return [
        OpenPort(answers.field(item, "port", int), answers.string(item, "address"), bool(item.get("public")))
        for item in answers.objects(body, "ports")
    ]


def matches(body: Mapping[str, Any]) -> Matches:
    """Read what a search found."""
    found = Matches(
        Match(
            path=answers.path_name(item, "path"),
            line=int(answers.number(item, "line")),
            column=int(answers.number(item, "column")),
            text=answers.string(item, "text"),
        )
        for item in answers.objects(body, "matches")
    )
    found.truncated = bool(body.get("truncated"))
    return found


@dataclass(frozen=True, slots=True)
class Changes:
    """One page of changes."""

    found: Sequence[Change]
    next_cursor: int
    overflow: bool
    """Whether some were lost before these."""
    ended: bool
    """Whether there will be no more."""


def changes(body: Mapping[str, Any]) -> Changes:
    """Read one page of changes."""
    found = [
        Change(
            cursor=answers.field(item, "cursor", int),
            kind=answers.field(item, "kind", str),
            path=answers.path_name(item, "path"),
            type=answers.optional(item, "type", str),
            moved_from=answers.path_name(item, "moved_from") if item.get("moved_from") is not None else None,
        )
        for item in answers.objects(body, "changes")
    ]
    cursor = answers.field(body, "next_cursor", int)
    return Changes(found, cursor, bool(body.get("overflow")), bool(body.get("ended")))


def signed_url(body: Mapping[str, Any]) -> SignedUrl:
    """Read a signed URL."""
    return SignedUrl(answers.field(body, "url", str), answers.moment(body.get("expires_at")))
