"""Heads of answers: read as those of a hostile server, written for the caller. Pure.

A server in a sandbox may lie about where its answer ends; whatever could be taken for two things is refused, so that
nothing it sends becomes part of somebody else's answer. In the path form a page shares its origin with the API and with
other sandboxes, so what would act on that whole origin is taken out.
"""

from __future__ import annotations

import http
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from traforo.domain import errors
from traforo.worker.ports import heads, targets

ISOLATION = b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"
"""Policy of pages in the path form: a browser gives them an origin that nobody else has."""

_LOOPBACK = (b"localhost", b"127.0.0.1", b"[::1]", b"0.0.0.0")
_TRAFFIC_COOKIE = re.compile(rb"[\s=]*" + heads.TRAFFIC_COOKIE)  # without a name, the value is sent as if it had one
_LOCATION = re.compile(rb"(https?:)?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_DROPPED = frozenset(
    {
        *(b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te"),
        *(b"x-request-id", b"x-traforo-error", b"x-traforo-sandbox-id", b"x-traforo-traffic-token"),
    }
)
_ORIGIN_WIDE = frozenset(
    {
        *(b"strict-transport-security", b"clear-site-data", b"service-worker-allowed", b"alt-svc"),
        *(b"nel", b"report-to", b"reporting-endpoints", b"origin-agent-cluster"),
    }
)
_LOCATIONS = frozenset({b"location", b"content-location"})
_SPECIAL = (
    _DROPPED
    | _ORIGIN_WIDE
    | _LOCATIONS
    | {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"set-cookie"}
)
_ENDLESS = frozenset({b"text/event-stream", b"multipart/x-mixed-replace"})
_PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}


@dataclass(slots=True)
class Answer:
    """What the head of an answer says."""

    status: int
    reason: bytes
    framing: heads.Framing = heads.Framing.NONE
    length: int | None = None
    """`Content-Length`, that of an answer without a body too."""
    upgrade: bytes | None = None
    """What is spoken from here on, in a 101."""
    kept: list[heads.Header] = field(default_factory=list)
    """What is passed on, locations as they came."""
    endless: bool = False
    """Whether its body goes on until somebody ends it: a stream of events."""
    written: tuple[object, bytes, bytes] | None = field(default=None, compare=False, repr=False)
    """What `write` has made of it last; its own."""

    @property
    def interim(self) -> bool:
        """Whether another answer follows."""
        return 100 <= self.status < 200 and self.status != 101


def read(status: int, reason: bytes, version: str, headers: Sequence[heads.Header], request: heads.Request) -> Answer:
    """Understand a head. Raises `UpstreamFailed`."""
    found = Answer(status, reason)
    if version not in {"1.0", "1.1"} or not 100 <= status <= 999:
        raise errors.UpstreamFailed("cannot pass on the answer: it is not HTTP/1.1")
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    for header in headers:
        lower = header[0].lower()
        if lower not in _SPECIAL or lower in _ORIGIN_WIDE or lower in _LOCATIONS:
            found.kept.append(header)
            if lower == b"content-type":
                found.endless = header[1].partition(b";")[0].strip().lower() in _ENDLESS
        elif lower == b"content-length":
            lengths.append(header[1].strip())
        elif lower == b"transfer-encoding":
            codings.append(header[1].strip().lower())
        elif lower == b"connection":
            options += [token.strip().lower() for token in header[1].split(b",")]
        elif lower == b"upgrade":
            found.upgrade = header[1].strip()
        elif lower == b"set-cookie" and not _TRAFFIC_COOKIE.match(header[1]):
            found.kept.append((header[0], host_only(header[1])))
    if options:
        found.kept = [one for one in found.kept if one[0].lower() not in options]
    _frame(found, lengths, codings, bodiless=request.method == b"HEAD" or status < 200 or status in {204, 304})
    found.endless = found.endless and found.framing in {heads.Framing.CHUNKED, heads.Framing.EOF}
    if codings and version != "1.1":
        raise errors.UpstreamFailed("cannot pass on the answer: HTTP/1.0 has no chunks")
    if status == 101:
        if request.upgrade is None or found.upgrade is None or b"upgrade" not in options:
            raise errors.UpstreamFailed(
                "cannot pass on the answer: nobody has asked for an upgrade, or not for this one"
            )
    else:
        found.upgrade = None
    return found


def chunked(answer: Answer, request: heads.Request) -> bool:
    """Tell whether the caller gets the body in chunks."""
    return request.modern and (answer.framing is heads.Framing.CHUNKED or answer.framing is heads.Framing.EOF)


def write(
    answer: Answer,
    request: heads.Request,
    target: targets.Target,
    *,
    request_id: str,
    keep_alive: bool,
    extra: Sequence[heads.Header] = (),
    isolated: bool = False,
) -> bytes:
    """Return the head for the caller. With `isolated` pages of the path form get an origin of their own."""
    made_for = (request.modern, request.host, target.port, target.prefix, keep_alive, isolated, *extra)
    if answer.written is None or answer.written[0] != made_for:
        parts = _headers(answer, request, target, keep_alive=keep_alive, extra=extra, isolated=isolated)
        answer.written = (made_for, *parts)
    _, before, after = answer.written
    return before + after if answer.interim else b"%b%b%b" % (before, request_id.encode(), after)


def _headers(
    answer: Answer,
    request: heads.Request,
    target: targets.Target,
    *,
    keep_alive: bool,
    extra: Sequence[heads.Header],
    isolated: bool,
) -> tuple[bytes, bytes]:
    """Return what comes before, and after, the id of the request."""
    reason = answer.reason
    if not reason or _CONTROLS.search(reason):
        reason = phrase(answer.status)
    lines = [b"HTTP/1.1 %d %b" % (answer.status, reason)]
    kept = answer.kept if not target.prefix else _below(answer.kept, request, target)
    lines += [b"%b: %b" % header for header in kept]
    if chunked(answer, request):
        lines.append(b"Transfer-Encoding: chunked")
    elif answer.length is not None:
        lines.append(b"Content-Length: %d" % answer.length)
    if answer.interim:
        return b"\r\n".join(lines), b"\r\n\r\n"
    lines.append(b"X-Request-Id: ")
    after = [b"", *(b"%b: %b" % header for header in extra)]
    if isolated and target.prefix and answer.status != 101:
        after.append(b"Content-Security-Policy: " + ISOLATION)
    if answer.upgrade is not None:
        after.append(b"Connection: Upgrade\r\nUpgrade: " + answer.upgrade)
    elif not keep_alive:
        after.append(b"Connection: close")
    after.append(b"\r\n")
    return b"\r\n".join(lines), b"\r\n".join(after)


def phrase(status: int) -> bytes:
    """Return the usual reason of a status."""
    return _PHRASES.get(status, b"")


def located(value: bytes, request: heads.Request, target: targets.Target) -> bytes:
    """Return a location of the path form as the caller has to see it; one that leads elsewhere stays as it is."""
    found = _LOCATION.fullmatch(value)
    if found is None:
        return target.prefix + value if value.startswith(b"/") else value
    host = found[2].lower()
    name, _, number = host.rpartition(b":") if host[-1:] != b"]" else (host, b"", b"")
    if not name:
        name, number = host, b""
    inside = name in _LOOPBACK and (number or b"80") == str(target.port).encode()
    if not inside and host != request.host.lower():
        return value
    rest = found[3] if found[3].startswith(b"/") else b"/" + found[3]
    if not inside and rest.startswith(target.prefix):  # by X-Forwarded-Host and -Prefix it knew the whole URL
        return value
    return target.prefix + rest


def host_only(cookie: bytes) -> bytes:
    """Return a cookie without `Domain`: below that of the ports are other people's sandboxes."""
    if b"domain" not in cookie.lower():
        return cookie
    parts = cookie.split(b";")
    return b";".join(parts[:1] + [part for part in parts[1:] if _attribute(part)[0] != b"domain"])


def confined(cookie: bytes, prefix: bytes) -> bytes:
    """Return a cookie of the path form with its `Path` below the prefix: neither the API nor a neighbour gets it."""
    parts = cookie.split(b";")
    for index, part in enumerate(parts[1:], 1):
        name, value = _attribute(part)
        if name == b"path":
            parts[index] = b" Path=" + prefix + (value if value.startswith(b"/") else b"/")
    return b";".join(parts)


def _attribute(part: bytes) -> tuple[bytes, bytes]:
    name, _, value = part.partition(b"=")
    return name.strip().lower(), value.strip()


def _below(kept: Sequence[heads.Header], request: heads.Request, target: targets.Target) -> list[heads.Header]:
    found: list[heads.Header] = []
    for name, value in kept:
        lower = name.lower()
        if lower in _LOCATIONS:
            found.append((name, located(value, request, target)))
        elif lower == b"set-cookie":
            found.append((name, confined(value, target.prefix)))
        elif lower not in _ORIGIN_WIDE:
            found.append((name, value))
    return found


def _frame(found: Answer, lengths: list[bytes], codings: list[bytes], *, bodiless: bool) -> None:
    if codings and (codings != [b"chunked"] or lengths):
        raise errors.UpstreamFailed("cannot pass on the answer: its 'Transfer-Encoding' is not just 'chunked'")
    if lengths:
        if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > heads.MAX_LENGTH_DIGITS:
            raise errors.UpstreamFailed("cannot pass on the answer: its 'Content-Length' is none")
        if found.status != 204 and found.status >= 200:
            found.length = int(lengths[0])
    if bodiless:
        return
    if codings:
        found.framing = heads.Framing.CHUNKED
    else:
        found.framing = heads.Framing.LENGTH if lengths else heads.Framing.EOF
