"""From target and host to a port: both forms, and everything that is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, ids
from traforo.worker.ports import targets

SANDBOX = ids.parse_sandbox_id("sbx_6c92285fa6d3e827b198d120ea3ac674_01M80R6GZ54GZ653DD4GX9YVKD")
TEXT = str(SANDBOX)
PATH = f"/sandboxes/{TEXT}/proxy/8000".encode()
HOST = f"8000-{SANDBOX.dns}.localhost:8081".encode()
router = targets.Router("localhost")

TAILS = st.binary(max_size=40).map(lambda text: bytes(c for c in text if c > 0x20 and c not in b"#?"))


def find(target: bytes, host: bytes = b"worker:8081") -> targets.Target:
    assert router.concerns(target, [(b"accept", b"*/*"), (b"host", host)])
    return router.find(target, host)


@pytest.mark.parametrize(
    "target, path",
    [
        (PATH, b"/"),
        (PATH + b"/", b"/"),
        (PATH + b"?a=b", b"/?a=b"),
        (PATH + b"/a%2Fb/../c//d?x=/proxy/1/", b"/a%2Fb/../c//d?x=/proxy/1/"),
        (PATH + b"//evil", b"//evil"),
        (b"http://worker:8081" + PATH + b"/a", b"/a"),
    ],
)
def test_the_path_form(target: bytes, path: bytes) -> None:
    """What follows the port goes on byte for byte."""
    assert find(target) == targets.Target(TEXT, 8000, path, PATH)


@pytest.mark.parametrize("host", [HOST, HOST.upper(), HOST.replace(b":8081", b""), HOST.replace(b":8081", b".:80")])
@pytest.mark.parametrize("target", [b"/", b"/a?b", b"*", b"/healthz", PATH + b"/x", b"/sandboxes"])
def test_the_host_form(host: bytes, target: bytes) -> None:
    """Every path of such a host belongs to the sandbox: its pages must not share an origin with the API."""
    assert find(target, host) == targets.Target(TEXT, 8000, target, b"")


def test_both_spellings_of_an_id() -> None:
    """The DNS spelling does in a path, too."""
    prefix = f"/sandboxes/{SANDBOX.dns}/proxy/1".encode()
    assert find(prefix + b"/a") == targets.Target(TEXT, 1, b"/a", prefix)


@pytest.mark.parametrize(
    "target, host",
    [
        (b"/sandboxes", b"localhost"),
        (f"/sandboxes/{TEXT}/exec".encode(), b"localhost"),
        (f"/sandboxes/{TEXT}/proxy".encode(), b"localhost"),
        (f"/sandboxes/{TEXT}/files?path=/proxy/1".encode(), b"localhost"),
        (f"/sandboxes/{TEXT}/files/x/proxy/1".encode(), b"localhost"),
        (b"/x" + PATH, b"localhost"),
        (PATH + b"#a", b"localhost"),
        (b"/", HOST.replace(b"localhost", b"localhost.evil")),
        (b"/", HOST.replace(b"localhost", b"locaIhost")),
        (b"/", b"x" + HOST),
        (b"/", b"a." + HOST),
        (b"/", HOST + b"a"),
        (b"/", b""),
    ],
)
def test_what_is_not_for_a_port(target: bytes, host: bytes) -> None:
    """The application gets it."""
    assert not router.concerns(target, [(b"host", host)])


@pytest.mark.parametrize("port", ["", "0", "65536", "99999999", "-1", "+1", "8o", "\uff11", "0x1", " 1"])
def test_bad_ports(port: str) -> None:
    """A port is a number from 1 to 65535."""
    with pytest.raises(errors.InvalidRequest) as caught:
        targets.port(port)
    assert caught.value.fields == {"field": "port"}
    with pytest.raises(errors.InvalidRequest):
        router.find(f"/sandboxes/{TEXT}/proxy/{port}/".encode(), b"h")


def test_bad_ids() -> None:
    """An id that cannot be one is told as such, in both forms."""
    for target, host in ((b"/sandboxes/x/proxy/1/", b"h"), (b"/", b"1-" + b"9" * 52 + b".localhost")):
        with pytest.raises(errors.MalformedId):
            find(target, host)


def test_a_target_that_names_another_host() -> None:
    """Target and `Host` have to agree, or two readers would see two hosts."""
    with pytest.raises(errors.InvalidRequest):
        find(b"http://other" + PATH, b"worker")


@pytest.mark.parametrize(
    "query, left, token",
    [
        (b"?traforo_traffic_token=t", b"", "t"),
        (b"?a=1&traforo_traffic_token=t&b=2", b"?a=1&b=2", "t"),
        (b"?traforo_traffic_token=t&traforo_traffic_token=u", b"", "u"),
        (b"?x=traforo_traffic_token", b"?x=traforo_traffic_token", None),
        (b"?traforo_traffic_token", b"", ""),
    ],
)
def test_the_token_in_a_query(query: bytes, left: bytes, token: str | None) -> None:
    """It is taken out, and nothing else is touched."""
    assert find(PATH + b"/p" + query) == targets.Target(TEXT, 8000, b"/p" + left, PATH, token)


@given(tail=TAILS, query=st.none() | TAILS, port=st.integers(1, 65535))
def test_any_path_goes_on_as_it_came(tail: bytes, query: bytes | None, port: int) -> None:
    """Whatever follows the prefix is the server's."""
    rest = b"/" + tail + (b"" if query is None else b"?" + query)
    prefix = f"/sandboxes/{TEXT}/proxy/{port}".encode()
    if targets.TOKEN_PARAMETER not in rest:
        assert find(prefix + rest) == targets.Target(TEXT, port, rest, prefix)


@given(target=st.binary(max_size=200), host=st.binary(max_size=120))
def test_nothing_breaks_it(target: bytes, host: bytes) -> None:
    """Any bytes are a target, an error of ours, or not our concern."""
    if router.concerns(target, [(b"host", host)]):
        try:
            router.find(target, host)
        except errors.TraforoError:
            return
