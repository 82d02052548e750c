"""Heads of requests: what is refused, what is kept, and what a server is told."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.ports import heads, targets

ORIGIN = heads.Origin(client="10.0.0.9", scheme="http", request_id="r1", authorization=True)
BELOW = targets.Target("sbx", 8000, b"/a", b"/sandboxes/sbx/proxy/8000")
NAMED = targets.Target("sbx", 8000, b"/a", b"")

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)


def read(
    *headers: tuple[str, str], method: bytes = b"GET", version: str = "1.1", host: str | None = "h"
) -> heads.Request:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    if host is not None:
        pairs.insert(0, (b"Host", host.encode()))
    return heads.read(method, version, [(name.lower(), value) for name, value in pairs], [name for name, _ in pairs])


def sent(request: heads.Request, target: targets.Target = BELOW, origin: heads.Origin = ORIGIN) -> list[str]:
    text = heads.write(request, target, origin).decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


class Parsed:
    """What a server's parser makes of a head."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.heads = self.messages = 0
        self.url = self.body = b""
        httptools.HttpRequestParser(self).feed_data(data)

    def on_message_begin(self) -> None:
        pass

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


@pytest.mark.parametrize(
    "headers",
    [
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "identity")],
        [("Transfer-Encoding", "chunked, chunked")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
        [("Content-Length", "3"), ("Content-Length", "3")],
        [("Content-Length", "3"), ("Content-Length", "4")],
        [("Content-Length", "3, 3")],
        [("Content-Length", "+3")],
        [("Content-Length", "0x3")],
        [("Content-Length", "³")],
        [("Content-Length", "")],
        [("Content-Length", "1" * 19)],
        [("Expect", "200-ok")],
        [("Host", "other")],
        [("Authorization", "a"), ("Authorization", "b")],
    ],
)
def test_what_two_readers_could_take_for_two_things(headers: list[tuple[str, str]]) -> None:
    """Such a request is refused."""
    with pytest.raises(errors.InvalidRequest):
        read(*headers, method=b"POST")


@pytest.mark.parametrize("host", ["", "a/b", "a b", "a@b", "a?b", "a,b", "a#b"])
def test_a_host_that_is_none(host: str) -> None:
    """What is no name with a port is refused."""
    with pytest.raises(errors.InvalidRequest):
        read(host=host)


def test_versions() -> None:
    """Only HTTP/1.0 and HTTP/1.1; the former has neither chunks nor a second request, and may do without a host."""
    for version in ("0.9", "2.0", "3.7"):
        with pytest.raises(errors.InvalidRequest):
            read(version=version)
    with pytest.raises(errors.InvalidRequest):
        read(("Transfer-Encoding", "chunked"), version="1.0")
    with pytest.raises(errors.InvalidRequest):
        read(host=None)
    old = read(("Connection", "keep-alive"), ("Upgrade", "x"), ("Expect", "100-continue"), version="1.0", host=None)
    assert (old.host, old.keep_alive, old.modern, old.upgrade, old.expects) == (b"localhost", False, False, None, False)


def test_connect_is_refused() -> None:
    """This is no forward proxy."""
    with pytest.raises(errors.InvalidRequest):
        read(method=b"CONNECT")


def test_what_a_server_is_told_in_the_path_form() -> None:
    """The host is its own, the caller's is in headers, and everything else is kept as it was written."""
    request = read(("X-Custom", "ä"), ("aCCept", "*/*"), ("Cookie", "a=1; b=2"), host="worker:8081")
    assert sent(request) == [
        "GET /a HTTP/1.1",
        "Host: localhost:8000",
        "X-Custom: ä",
        "aCCept: */*",
        "Cookie: a=1; b=2",
        "X-Forwarded-For: 10.0.0.9",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: worker:8081",
        "X-Forwarded-Port: 8081",
        "X-Traforo-Sandbox-Id: sbx",
        "X-Request-Id: r1",
        "X-Forwarded-Prefix: /sandboxes/sbx/proxy/8000",
    ]


@pytest.mark.parametrize("host, scheme, port", [("h", "http", "80"), ("h", "https", "443"), ("[::1]:5", "http", "5")])
def test_what_a_server_is_told_in_the_host_form(host: str, scheme: str, port: str) -> None:
    """The host is the caller's; there is no prefix."""
    origin = heads.Origin(client="c", scheme=scheme, request_id="r", authorization=True)
    lines = sent(read(host=host), NAMED, origin)
    assert lines[1] == f"Host: {host}"
    assert f"X-Forwarded-Port: {port}" in lines
    assert not [line for line in lines if line.startswith("X-Forwarded-Prefix")]


def test_a_request_is_written_anew_for_wherever_it_goes() -> None:
    """What was written of it before is used for the same way only, with another path and another id."""
    headers = [("Authorization", "Basic YTpi"), ("X-A", "b")]
    request = read(*headers)
    targeted = [
        BELOW,
        NAMED,
        targets.Target("other", 8000, b"/a", BELOW.prefix),
        targets.Target("sbx", 8001, b"/a", BELOW.prefix),
        targets.Target("sbx", 8000, b"/b?c", BELOW.prefix),
    ]
    origins = [
        ORIGIN,
        ORIGIN._replace(client="10.0.0.8"),
        ORIGIN._replace(scheme="https"),
        ORIGIN._replace(request_id="r2"),
        ORIGIN._replace(authorization=False),
    ]
    pairs = [(target, origin) for target in targeted for origin in origins]
    for target, origin in (*pairs, *reversed(pairs)):
        assert sent(request, target, origin) == sent(read(*headers), target, origin)
    assert len({tuple(sent(request, *pair)) for pair in pairs}) == len(pairs)


def test_what_is_dropped() -> None:
    """Hop-by-hop headers, what `Connection` names, what only we may say (in any spelling), and our credentials."""
    request = read(
        ("Connection", "close, X-Hop , Content-Length"),
        ("X-Hop", "1"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "1"),
        ("Proxy-Authorization", "1"),
        ("Content-Length", "3"),
        ("X-Forwarded-For", "1.1.1.1"),
        ("X_Forwarded_For", "1.1.1.1"),
        ("x-forwarded-prefix", "/"),
        ("Forwarded", "for=1"),
        ("X-Traforo-Sandbox-Id", "other"),
        ("X-Traforo_Sandbox-Id", "other"),
        ("X-Traforo-Client-Id", "c"),
        ("X-Traforo-Traffic-Token", "secret"),
        ("Cookie", "__traforo_traffic=secret"),
        ("Cookie", "a=1; __traforo_traffic=secret2;b=2"),
        ("Upgrade", "x"),
        ("TE", "gzip"),
        ("X-Kept", "yes"),
        method=b"POST",
    )
    assert (request.token, request.cookie_token, request.keep_alive) == ("secret", "secret2", False)
    lines = sent(request)
    assert [line for line in lines[2:] if not line.startswith("X-Forwarded")] == [
        "Cookie: a=1;b=2",
        "X-Kept: yes",
        "Content-Length: 3",
        "X-Traforo-Sandbox-Id: sbx",
        "X-Request-Id: r1",
    ]
    assert lines.count("X-Forwarded-For: 10.0.0.9") == len([line for line in lines if "orwarded-For" in line])


def test_authorization_is_forwarded_when_it_is_not_ours() -> None:
    """Whose it is is decided elsewhere."""
    request = read(("Authorization", "Basic abc"))
    assert "Authorization: Basic abc" in sent(request)
    ours = heads.Origin(client="c", scheme="http", request_id="r", authorization=False)
    assert not [line for line in sent(request, BELOW, ours) if "Basic" in line]


@pytest.mark.parametrize(
    "headers, upgrade",
    [
        ([("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")], b"websocket"),
        ([("Connection", "upgrade"), ("Upgrade", "Foo/2, bar")], b"Foo/2, bar"),
        ([("Connection", "upgrade"), ("Upgrade", "h2c")], None),
        ([("Connection", "upgrade"), ("Upgrade", "a, h2c")], None),
        ([("Connection", "upgrade"), ("Upgrade", "TLS/1.0")], None),
        ([("Connection", "upgrade")], None),
        ([("Upgrade", "websocket")], None),
        ([("Connection", "upgrade"), ("Upgrade", "a"), ("Upgrade", "b")], None),
        ([("Connection", "upgrade"), ("Upgrade", "a"), ("Content-Length", "3")], None),
    ],
)
def test_upgrades(headers: list[tuple[str, str]], upgrade: bytes | None) -> None:
    """Only a clear wish without a body, for something that can pass as bytes, is forwarded."""
    request = read(*headers)
    assert request.upgrade == upgrade
    lines = sent(request)
    assert ("Connection: Upgrade" in lines) == (upgrade is not None)
    assert [line for line in lines if line.startswith("Upgrade: ")] == (
        [f"Upgrade: {upgrade.decode()}"] if upgrade else []
    )


def test_a_plain_connection() -> None:
    """It is asked for by an upgrade of our own."""
    assert read(("Connection", "upgrade"), ("Upgrade", "Traforo-TCP")).raw
    assert not read(("Connection", "upgrade"), ("Upgrade", "websocket")).raw


def test_framing() -> None:
    """A body keeps the form in which it is told; nothing is said where there is none."""
    assert "Transfer-Encoding: chunked" in sent(read(("Transfer-Encoding", "Chunked"), method=b"POST"))
    assert "Content-Length: 12" in sent(read(("Content-Length", "012 "), method=b"POST"))
    assert "Content-Length: 0" in sent(read(("Content-Length", "0"), method=b"POST"))
    assert not [line for line in sent(read(("Content-Length", "0"))) if "Length" in line]
    assert "Expect: 100-continue" in sent(read(("Content-Length", "3"), ("Expect", "100-Continue"), method=b"PUT"))
    assert not read(("Expect", "100-continue")).expects
    assert "TE: trailers" in sent(read(("TE", "trailers, deflate;q=0.5")))


def test_request_ids() -> None:
    """The caller's is taken when it is a plain one."""
    assert read(("X-Request-Id", "a.b-c_1")).request_id == "a.b-c_1"
    assert read(("X-Request-Id", "a b")).request_id is None


def test_trailers() -> None:
    """Those that would frame, route, authenticate or describe are dropped."""
    pairs = [(b"A", b"1"), (b"Content-Length", b"3"), (b"transfer-encoding", b"x"), (b"Authorization", b"x")]
    pairs += [(b"Host", b"x"), (b"Set-Cookie", b"x"), (b"X_Forwarded_For", b"x"), (b"Grpc-Status", b"0")]
    assert heads.trailers(pairs) == b"A: 1\r\nGrpc-Status: 0\r\n"


@given(
    headers=st.lists(st.tuples(TOKEN | st.sampled_from([name.decode() for name in heads.KNOWN]), VALUE), max_size=12),
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"]),
    version=st.sampled_from(["1.0", "1.1"]),
)
def test_what_is_written_is_one_request(headers: list[tuple[str, str]], method: bytes, version: str) -> None:
    """Whatever a caller sends, a server reads exactly one head, with one host, one framing, and ours alone of ours."""
    try:
        request = read(*headers, method=method, version=version)
    except errors.TraforoError:
        return
    data = heads.write(request, BELOW, ORIGIN)
    body = {
        heads.Framing.NONE: b"",
        heads.Framing.LENGTH: b"" if request.length > 100 else b"x" * request.length,
        heads.Framing.CHUNKED: b"0\r\n\r\n",
    }[request.framing]
    try:
        found = Parsed(data + body)
    except httptools.HttpParserUpgrade:
        assert request.upgrade is not None
        return
    assert found.heads == 1
    assert found.messages == (1 if request.length <= 100 else 0)
    names = [name.lower().replace(b"_", b"-") for name, _ in found.headers]
    assert names.count(b"host") == names.count(b"x-forwarded-for") == names.count(b"x-traforo-sandbox-id") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert heads.TRAFFIC_HEADER not in names
    assert dict(found.headers)[b"Host"] == b"localhost:8000"


def test_tokens_in_other_places() -> None:
    """A page whose URL had a traffic token sends it on as `Referer`; a WebSocket's token may be a subprotocol."""
    found = read(
        ("Referer", "http://h/a?traforo_traffic_token=secret&b=1"),
        ("Sec-WebSocket-Protocol", "chat, traforo.token.secret, traforo"),
        ("Sec-Fetch-Site", "Same-Site"),
        ("Sec-Fetch-Mode", "navigate"),
    )
    assert (found.site, found.navigates) == (b"same-site", True)
    lines = sent(found)
    assert "secret" not in "".join(lines)
    assert {"Referer: http://h/a?b=1", "Sec-WebSocket-Protocol: chat, traforo"} < set(lines)
    assert not any("secret" in line for line in sent(read(("Sec-WebSocket-Protocol", "traforo.token.secret"))))
