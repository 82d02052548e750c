"""Heads of answers: hostile ones are refused, and those that pass are one answer of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.ports import answers, heads, targets

PREFIX = b"/sandboxes/sbx/proxy/8000"
BELOW = targets.Target("sbx", 8000, b"/a", PREFIX)
NAMED = targets.Target("sbx", 8000, b"/a", b"")
Framing = heads.Framing


def request(
    method: bytes = b"GET", *, modern: bool = True, upgrade: bytes | None = None, host: bytes = b"worker:8081"
) -> heads.Request:
    return heads.Request(method, host=host, modern=modern, upgrade=upgrade)


def read(
    *headers: tuple[str, str], status: int = 200, version: str = "1.1", asked: heads.Request | None = None
) -> answers.Answer:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return answers.read(status, b"Fine", version, pairs, asked or request())


def written(
    answer: answers.Answer,
    asked: heads.Request | None = None,
    target: targets.Target = BELOW,
    *,
    keep_alive: bool = True,
    isolated: bool = False,
    extra: Sequence[heads.Header] = (),
    request_id: str = "r1",
) -> list[str]:
    data = answers.write(
        answer,
        asked or request(),
        target,
        request_id=request_id,
        keep_alive=keep_alive,
        extra=extra,
        isolated=isolated,
    ).decode("latin-1")
    assert data.endswith("\r\n\r\n")
    return data[:-4].split("\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        [("Transfer-Encoding", "gzip")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
        [("Content-Length", "3"), ("Content-Length", "3")],
        [("Content-Length", "3,3")],
        [("Content-Length", "-1")],
        [("Content-Length", "9" * 19)],
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_what_leaves_doubt_about_its_end(headers: list[tuple[str, str]], method: bytes) -> None:
    """Such an answer is not passed on."""
    with pytest.raises(errors.UpstreamFailed):
        read(*headers, asked=request(method))


def test_other_versions_and_upgrades_that_nobody_asked_for() -> None:
    """Neither is passed on."""
    with pytest.raises(errors.UpstreamFailed):
        read(version="2.0")
    with pytest.raises(errors.UpstreamFailed):
        read(("Transfer-Encoding", "chunked"), version="1.0")
    switch = [("Upgrade", "x"), ("Connection", "upgrade")]
    with pytest.raises(errors.UpstreamFailed):
        read(*switch, status=101)
    for lacking in (switch[:1], switch[1:]):
        with pytest.raises(errors.UpstreamFailed):
            read(*lacking, status=101, asked=request(upgrade=b"x"))


@pytest.mark.parametrize(
    "status, method, headers, framing, lines",
    [
        (200, b"GET", [("Content-Length", "03")], Framing.LENGTH, ["Content-Length: 3"]),
        (200, b"GET", [("Transfer-Encoding", "Chunked")], Framing.CHUNKED, ["Transfer-Encoding: chunked"]),
        (200, b"GET", [], Framing.EOF, ["Transfer-Encoding: chunked"]),
        (200, b"HEAD", [("Content-Length", "3")], Framing.NONE, ["Content-Length: 3"]),
        (200, b"HEAD", [("Transfer-Encoding", "chunked")], Framing.NONE, []),
        (204, b"GET", [("Content-Length", "3")], Framing.NONE, []),
        (304, b"GET", [("Content-Length", "3")], Framing.NONE, ["Content-Length: 3"]),
        (103, b"GET", [("Content-Length", "3")], Framing.NONE, []),
    ],
)
def test_framing(
    status: int, method: bytes, headers: list[tuple[str, str]], framing: heads.Framing, lines: list[str]
) -> None:
    """Where an answer ends is told anew from what was understood."""
    answer = read(*headers, status=status, asked=request(method))
    assert answer.framing is framing
    found = [line for line in written(answer, request(method)) if line.startswith(("Content-Length", "Transfer-"))]
    assert found == lines


def test_callers_of_http_10_get_no_chunks() -> None:
    """The end of the connection tells them the end of the answer."""
    old = request(modern=False)
    assert written(read(("Transfer-Encoding", "chunked"), asked=old), old, keep_alive=False) == [
        "HTTP/1.1 200 Fine",
        "X-Request-Id: r1",
        "Connection: close",
    ]


def test_what_is_dropped() -> None:
    """Hop-by-hop headers, those that only we may set, our cookie, and in the path form what acts on a whole origin."""
    answer = read(
        ("Connection", "X-Hop, keep-alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "x"),
        ("X-Request-Id", "theirs"),
        ("X-Traforo-Error", "not_found"),
        ("Set-Cookie", "__traforo_traffic=evil; Path=/"),
        ("Set-Cookie", "=__traforo_traffic=evil; Path=/"),
        ("Set-Cookie", "a=b; Path=/"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Clear-Site-Data", "*"),
        ("NEL", "{}"),
        ("Report-To", "{}"),
        ("Content-Length", "0"),
    )
    kept = ["HTTP/1.1 200 Fine", "Set-Cookie: a=b; Path=/", "Content-Length: 0", "X-Request-Id: r1"]
    below = BELOW.prefix.decode()
    assert written(answer) == [kept[0], f"Set-Cookie: a=b; Path={below}/", *kept[2:]]
    wide = ["Strict-Transport-Security: max-age=1", "Clear-Site-Data: *", "NEL: {}", "Report-To: {}"]
    assert written(answer, target=NAMED) == [*kept[:2], *wide, *kept[2:]]


@pytest.mark.parametrize(
    "cookie, host_form, path_form",
    [
        ("a=b", "a=b", "a=b"),
        ("a=b; domain=localhost; Secure", "a=b; Secure", "a=b; Secure"),
        ("domain=b;Domain = x;HttpOnly", "domain=b;HttpOnly", "domain=b;HttpOnly"),
        ("a=b; PATH=/app; Max-Age=1", "a=b; PATH=/app; Max-Age=1", "a=b; Path={}/app; Max-Age=1"),
        ("a=b; path", "a=b; path", "a=b; Path={}/"),
        ("path=/x; Path=y", "path=/x; Path=y", "path=/x; Path={}/"),
        ("a=b; Path=/1; Path=/2", "a=b; Path=/1; Path=/2", "a=b; Path={}/1; Path={}/2"),
    ],
)
def test_cookies_stay_with_their_server(cookie: str, host_form: str, path_form: str) -> None:
    """No domain makes them known to neighbours, and in the path form no path does."""
    below = BELOW.prefix.decode()
    answer = read(("Set-Cookie", cookie), ("Content-Length", "0"))
    assert f"Set-Cookie: {host_form}" in written(answer, target=NAMED)
    assert f"Set-Cookie: {path_form.replace('{}', below)}" in written(answer)


def test_pages_of_the_path_form_are_isolated() -> None:
    """Their policy gives them an origin of their own; a server cannot take it away, and names have no need of it."""
    answer = read(("Content-Security-Policy", "default-src *"), ("Content-Length", "0"))
    policy = f"Content-Security-Policy: {answers.ISOLATION.decode()}"
    assert policy in written(answer, isolated=True)
    assert policy not in written(answer)
    assert policy not in written(answer, target=NAMED, isolated=True)


@pytest.mark.parametrize(
    "headers, endless",
    [
        ([("Content-Type", "text/event-stream")], True),
        ([("content-type", "Text/Event-Stream ; charset=utf-8"), ("Transfer-Encoding", "chunked")], True),
        ([("Content-Type", "multipart/x-mixed-replace;boundary=x")], True),
        ([("Content-Type", "text/event-stream"), ("Content-Length", "9")], False),
        ([("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")], False),
        ([("Transfer-Encoding", "chunked")], False),
    ],
)
def test_streams_of_events_do_not_end(headers: list[tuple[str, str]], endless: bool) -> None:
    """Unless they say where."""
    assert read(*headers).endless == endless


def test_an_answer_is_written_anew_for_whoever_asks() -> None:
    """What was written of it before is used for the same request only, with another id."""
    headers = [("Location", "http://elsewhere/x"), ("Set-Cookie", "a=b; Path=/")]
    answer = read(*headers)
    other = targets.Target(BELOW.sandbox_id, BELOW.port, b"/", b"/other")
    variants: list[dict[str, Any]] = [
        {},
        {"target": NAMED},
        {"target": other},
        {"isolated": True},
        {"keep_alive": False},
        {"extra": [(b"Set-Cookie", b"c=d")]},
        {"asked": request(host=b"elsewhere")},
        {"asked": request(modern=False)},
    ]
    for variant in (*variants, *reversed(variants)):
        for request_id in ("r1", "r2"):
            fresh = written(read(*headers), request_id=request_id, **variant)
            assert written(answer, request_id=request_id, **variant) == fresh
    assert len({tuple(written(answer, **variant)) for variant in variants}) == len(variants)


@pytest.mark.parametrize("reason", [b"", b"a\x01b", b"\x7f"])
def test_odd_reasons(reason: bytes) -> None:
    """The usual one takes their place."""
    answer = answers.read(404, reason, "1.1", [], request())
    assert written(answer)[0] == "HTTP/1.1 404 Not Found"
    assert written(answers.read(799, reason, "1.1", [], request()))[0] == "HTTP/1.1 799 "


@pytest.mark.parametrize(
    "location, seen",
    [
        ("/login?a=/b", PREFIX.decode() + "/login?a=/b"),
        ("login", "login"),
        ("../x", "../x"),
        ("?a", "?a"),
        ("#a", "#a"),
        ("", ""),
        ("http://localhost:8000/x?y#z", PREFIX.decode() + "/x?y#z"),
        ("https://127.0.0.1:8000", PREFIX.decode() + "/"),
        ("HTTP://[::1]:8000/x", PREFIX.decode() + "/x"),
        ("//localhost:8000/x", PREFIX.decode() + "/x"),
        ("http://localhost:8000?a", PREFIX.decode() + "/?a"),
        ("http://localhost:9000/x", "http://localhost:9000/x"),
        ("http://localhost/x", "http://localhost/x"),
        ("https://example.org/x", "https://example.org/x"),
        ("//example.org/x", "//example.org/x"),
        ("http://worker:8081/x", PREFIX.decode() + "/x"),
        ("http://worker:8081" + PREFIX.decode() + "/x", "http://worker:8081" + PREFIX.decode() + "/x"),
        ("mailto:a@b", "mailto:a@b"),
    ],
)
def test_locations(location: str, seen: str) -> None:
    """In the path form what leads to the server leads through us, and everything else stays; names need nothing."""
    assert answers.located(location.encode(), request(), BELOW).decode() == seen
    answer = read(("Location", location), ("Content-Length", "0"), status=302)
    assert f"Location: {seen}" in written(answer)
    assert f"Location: {location}" in written(answer, target=NAMED)


def test_a_switch() -> None:
    """It is told as it came."""
    asked = request(upgrade=b"websocket")
    answer = read(("Upgrade", "websocket"), ("connection", "Upgrade"), ("Sec-X", "y"), status=101, asked=asked)
    assert written(answer, asked, isolated=True) == [
        "HTTP/1.1 101 Fine",
        "Sec-X: y",
        "X-Request-Id: r1",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ]


class Parsed:
    """What a caller's parser makes of an answer."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.heads = self.messages = 0
        httptools.HttpResponseParser(self).feed_data(data)

    def on_message_begin(self) -> None:
        pass

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


NAMES = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Set-Cookie", "Location", "X-A", "Trailer", "TE"]
)
VALUES = st.sampled_from(["0", "5", "chunked", "gzip", "close", "upgrade", "x-a", "/a", "a=b", "trailers"]) | st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=8
)


@given(
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    status=st.integers(200, 599),
    target=st.sampled_from([BELOW, NAMED]),
)
def test_what_is_written_is_one_answer(headers: list[tuple[str, str]], status: int, target: targets.Target) -> None:
    """Whatever a server says, the caller's parser finds the head, and the body where we put it."""
    try:
        answer = read(*headers, status=status)
    except errors.TraforoError:
        return
    head = answers.write(answer, request(), target, request_id="r1", keep_alive=True)
    body, expected = {
        Framing.NONE: (b"", b""),
        Framing.LENGTH: (b"x" * min(answer.length or 0, 9), b"x" * min(answer.length or 0, 9)),
        Framing.CHUNKED: (b"1\r\nx\r\n0\r\n\r\n", b"x"),
        Framing.EOF: (b"1\r\nx\r\n0\r\n\r\n", b"x"),
    }[answer.framing]
    found = Parsed(head + body)
    assert (found.heads, found.body) == (1, expected)
    assert found.messages == (1 if (answer.length or 0) <= 9 or answer.framing is not Framing.LENGTH else 0)
