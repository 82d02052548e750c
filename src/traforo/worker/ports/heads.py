"""Heads of requests: read as those of a stranger, written as those of a proxy. Pure.

The parser has refused what is no HTTP/1.1; here is refused what two readers could take for two things. What is passed
on is made anew from what was understood: no header that frames, routes or authenticates gets through as it came.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from traforo.api import sockets
from traforo.domain import errors
from traforo.worker.ports import targets

TRAFFIC_HEADER = b"x-traforo-traffic-token"
"""Header that carries a traffic token."""
TRAFFIC_COOKIE = b"__traforo_traffic"
"""Cookie that carries one, for browsers."""
SANDBOX_HEADER = b"X-Traforo-Sandbox-Id"
"""Header that tells a server which sandbox it is in."""
TCP_UPGRADE = b"traforo-tcp"
"""The `Upgrade` that asks for a plain connection to a port."""
MAX_LENGTH_DIGITS = 18
"""Digits of the longest `Content-Length`."""

Header = tuple[bytes, bytes]
"""Name and value."""

_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]{1,512}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOKEN_PROTOCOL = sockets.TOKEN_PROTOCOL.encode()
_NEVER_TUNNELLED = frozenset({b"h2c", b"tls"})


class Framing(enum.Enum):
    """How the end of a body is told."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    EOF = "eof"
    """By the end of the connection; answers only."""


class _Kind(enum.Enum):
    """What a header means to a proxy."""

    DROP = enum.auto()
    HOST = enum.auto()
    LENGTH = enum.auto()
    CODING = enum.auto()
    CONNECTION = enum.auto()
    UPGRADE = enum.auto()
    EXPECT = enum.auto()
    TE = enum.auto()
    AUTHORIZATION = enum.auto()
    COOKIE = enum.auto()
    TRAFFIC = enum.auto()
    REFERER = enum.auto()
    PROTOCOLS = enum.auto()
    SITE = enum.auto()
    MODE = enum.auto()
    REQUEST_ID = enum.auto()


_DROPPED = (
    *(b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"http2-settings"),
    *(b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"),
    *(b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip"),
    *(b"x-traforo-sandbox-id", b"x-traforo-client-id", b"x-traforo-error"),
)
_KINDS = dict.fromkeys(_DROPPED, _Kind.DROP) | {
    b"host": _Kind.HOST,
    b"content-length": _Kind.LENGTH,
    b"transfer-encoding": _Kind.CODING,
    b"connection": _Kind.CONNECTION,
    b"upgrade": _Kind.UPGRADE,
    b"expect": _Kind.EXPECT,
    b"te": _Kind.TE,
    b"authorization": _Kind.AUTHORIZATION,
    b"cookie": _Kind.COOKIE,
    TRAFFIC_HEADER: _Kind.TRAFFIC,
    b"referer": _Kind.REFERER,
    b"sec-websocket-protocol": _Kind.PROTOCOLS,
    b"sec-fetch-site": _Kind.SITE,
    b"sec-fetch-mode": _Kind.MODE,
    b"x-request-id": _Kind.REQUEST_ID,
}
KNOWN = frozenset(_KINDS)
"""Names of the headers that mean something to a proxy, in lower case."""
_NOT_IN_TRAILERS = frozenset({b"content-type", b"content-encoding", b"content-range", b"trailer", b"set-cookie"})


@dataclass(slots=True)
class Request:
    """What the head of a request says."""

    method: bytes
    host: bytes = b""
    framing: Framing = Framing.NONE
    length: int = 0
    """Bytes of the body, where `framing` is LENGTH."""
    keep_alive: bool = True
    """Whether the connection can serve another request."""
    modern: bool = True
    """Whether it is HTTP/1.1: its sender understands chunks and interim answers."""
    expects: bool = False
    """Its sender waits for `100 Continue` before it sends the body."""
    trailers: bool = False
    """Its sender takes trailers."""
    upgrade: bytes | None = None
    """What it wants to speak from here on."""
    authorization: str | None = None
    token: str | None = None
    """The traffic token of its header."""
    cookie_token: str | None = None
    """The traffic token of its cookie."""
    site: bytes = b""
    """What a browser says of whose page has sent it: `same-origin`, `same-site`, `cross-site`, `none`."""
    navigates: bool = False
    """A browser sent it to show what it gets, and not for a page."""
    request_id: str | None = None
    kept: list[Header] = field(default_factory=list)
    """What is forwarded as it came."""
    written: tuple[object, bytes, bytes] | None = field(default=None, compare=False, repr=False)
    """What `write` has made of it last; its own."""

    @property
    def raw(self) -> bool:
        """Whether it asks for a plain connection to the port."""
        return self.upgrade is not None and self.upgrade.lower() == TCP_UPGRADE


class Origin(NamedTuple):
    """What a server is told of the way on which a request came."""

    client: str
    """Address of the caller."""
    scheme: str
    """`http` or `https`."""
    request_id: str
    authorization: bool
    """Whether the server may see the request's `Authorization`, because it is none of ours."""


def read(method: bytes, version: str, headers: Sequence[Header], names: Sequence[bytes]) -> Request:
    """Understand a head. `headers` have names in lower case, `names` the same as they were written.

    Raises `InvalidRequest`; then the connection must be closed.
    """
    found = Request(method)
    if version not in {"1.0", "1.1"}:
        raise _refused(f"HTTP/{version[:8]} is not spoken here")
    if method == b"CONNECT":
        raise _refused("CONNECT is not spoken here")
    found.modern = version == "1.1"
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    upgrades: list[bytes] = []
    for (lower, value), name in zip(headers, names, strict=True):
        kind = _KINDS.get(lower)
        if kind is None:
            if b"_" not in lower or lower.replace(b"_", b"-") not in _KINDS:  # many servers take one for the other
                found.kept.append((name, value))
            continue
        match kind:
            case _Kind.HOST:
                hosts.append(value.strip())
            case _Kind.LENGTH:
                lengths.append(value.strip())
            case _Kind.CODING:
                codings.append(value.strip().lower())
            case _Kind.CONNECTION:
                options += _tokens(value)
            case _Kind.UPGRADE:
                upgrades.append(value.strip())
            case _Kind.EXPECT:
                if value.strip().lower() != b"100-continue":
                    raise _refused("it expects something else than '100-continue'")
                found.expects = found.modern
            case _Kind.TE:
                found.trailers = b"trailers" in _tokens(value)
            case _Kind.AUTHORIZATION:
                if found.authorization is not None:
                    raise _refused("it has two 'Authorization'")
                found.authorization = value.decode("latin-1")
            case _Kind.COOKIE:
                rest, found.cookie_token = _cookies(value, found.cookie_token)
                if rest:
                    found.kept.append((name, rest))
            case _Kind.TRAFFIC:
                found.token = value.strip().decode("latin-1")
            case _Kind.REFERER:
                found.kept.append((name, targets.without_token(value)[0]))
            case _Kind.PROTOCOLS:
                if rest := _protocols(value):
                    found.kept.append((name, rest))
            case _Kind.SITE:
                found.site = value.strip().lower()
                found.kept.append((name, value))
            case _Kind.MODE:
                found.navigates = value.strip().lower() == b"navigate"
                found.kept.append((name, value))
            case _Kind.REQUEST_ID if _REQUEST_ID.fullmatch(value):
                found.request_id = value.decode()
            case _:
                pass
    found.host = _host(hosts, modern=found.modern)
    _frame(found, lengths, codings)
    found.expects = found.expects and found.framing is not Framing.NONE
    found.keep_alive = found.modern and b"close" not in options
    if b"upgrade" in options and found.modern and found.framing is Framing.NONE:
        found.upgrade = _upgrade(upgrades)
    if options:
        found.kept = [one for one in found.kept if one[0].lower() not in options]
    return found


def write(request: Request, target: targets.Target, origin: Origin) -> bytes:
    """Return the head that is sent to the server."""
    made_for = (target.sandbox_id, target.port, target.prefix, origin.client, origin.scheme, origin.authorization)
    if request.written is None or request.written[0] != made_for:
        request.written = (made_for, *_headers(request, target, origin))
    _, before, after = request.written
    return b"%b %b %b%b%b" % (request.method, target.path, before, origin.request_id.encode(), after)


def _headers(request: Request, target: targets.Target, origin: Origin) -> tuple[bytes, bytes]:
    """Return what comes before, and after, the id of a request, from the version on."""
    port = str(target.port).encode()
    host = b"localhost:" + port if target.prefix else request.host
    lines = [b"HTTP/1.1\r\nHost: " + host]
    lines += [b"%b: %b" % header for header in request.kept]
    if request.authorization is not None and origin.authorization:
        lines.append(b"Authorization: " + request.authorization.encode("latin-1"))
    if request.framing is Framing.LENGTH:
        lines.append(b"Content-Length: %d" % request.length)
    elif request.framing is Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    if request.expects:
        lines.append(b"Expect: 100-continue")
    if request.upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: " + request.upgrade)
    elif request.trailers:
        lines.append(b"Connection: TE\r\nTE: trailers")
    name, _, outer = request.host.rpartition(b":")
    if not name or not outer.isdigit():
        outer = b"443" if origin.scheme == "https" else b"80"
    lines.append(
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %b\r\n"
        b"%b: %b\r\nX-Request-Id: "
        % (
            *(origin.client.encode("latin-1", "replace"), origin.scheme.encode(), request.host, outer),
            *(SANDBOX_HEADER, target.sandbox_id.encode()),
        )
    )
    prefix = b"\r\nX-Forwarded-Prefix: " + target.prefix if target.prefix else b""
    return b"\r\n".join(lines), prefix + b"\r\n\r\n"


def trailers(pairs: Iterable[Header], meant: Iterable[bytes] = ()) -> bytes:
    """Return the lines of trailers, without those that mean something to a proxy and those in `meant`."""
    refused = _NOT_IN_TRAILERS.union(meant)
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in pairs
        if (plain := name.lower().replace(b"_", b"-")) not in _KINDS and plain not in refused
    )


def _refused(why: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"cannot read the request: {why}")


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def _host(hosts: list[bytes], *, modern: bool) -> bytes:
    if len(hosts) > 1 or (modern and not hosts):
        raise _refused("it has no 'Host', or more than one")
    if not hosts:
        return b"localhost"
    if not _HOST.fullmatch(hosts[0]):
        raise _refused("its 'Host' is none")
    return hosts[0]


def _frame(found: Request, lengths: list[bytes], codings: list[bytes]) -> None:
    if codings:
        if codings != [b"chunked"] or lengths or not found.modern:
            raise _refused("its 'Transfer-Encoding' is not just 'chunked'")
        found.framing = Framing.CHUNKED
    elif lengths:
        if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > MAX_LENGTH_DIGITS:
            raise _refused("its 'Content-Length' is none")
        found.length = int(lengths[0])
        found.framing = Framing.LENGTH if found.length or found.method not in {b"GET", b"HEAD"} else Framing.NONE


def _upgrade(upgrades: list[bytes]) -> bytes | None:
    if len(upgrades) != 1 or not upgrades[0]:
        return None
    names = {token.partition(b"/")[0] for token in _tokens(upgrades[0])}
    return None if names & _NEVER_TUNNELLED else upgrades[0]


def _protocols(value: bytes) -> bytes:
    """Return the subprotocols that carry no token of ours."""
    if _TOKEN_PROTOCOL not in value:
        return value
    return b",".join(one for one in value.split(b",") if not one.strip().startswith(_TOKEN_PROTOCOL)).strip()


def _cookies(value: bytes, token: str | None) -> tuple[bytes, str | None]:
    if TRAFFIC_COOKIE not in value:
        return value, token
    kept: list[bytes] = []
    for item in value.split(b";"):
        name, _, content = item.strip().partition(b"=")
        if name.strip() == TRAFFIC_COOKIE:
            token = content.strip().decode("latin-1")
        else:
            kept.append(item)
    return b";".join(kept).strip(), token
