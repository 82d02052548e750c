"""Who may reach a port, with which credential, and which of them the server sees."""

from __future__ import annotations

import pytest
from joserfc import jwk, jwt

from tests.fakes import clocks, workers
from traforo.api import claims, tokens
from traforo.domain import errors
from traforo.settings import groups
from traforo.worker.ports import gates, heads, targets

ID = "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789"
OTHER = ID[:-1] + "8"
FOREIGN_KEY = jwk.OctKey.import_key(b"another secret of thirty-two bytes!")


class Site:
    """A gate, and those who can sign for it."""

    def __init__(self, *, secret: str = workers.SECRET) -> None:
        self.clock = clocks.FakeClock()
        self.authority = tokens.Authority(groups.AuthSettings.model_validate({"jwt_secret": secret}), self.clock)
        self.gate = gates.Gate(self.authority, self.clock)

    def jwt(self) -> str:
        return f"Bearer {workers.sign(self.clock.now())}"

    def sandbox(self, sandbox_id: str = ID, seconds: float = 60.0) -> str:
        return f"Bearer {self.authority.sign_sandbox_token(sandbox_id, 'client', self.clock.now() + seconds)}"

    def traffic(self, sandbox_id: str = ID) -> str:
        found = self.authority.traffic_token(sandbox_id)
        assert found is not None
        return found

    def check(
        self,
        authorization: str | None = None,
        *,
        header: str | None = None,
        query: str | None = None,
        cookie: str | None = None,
        public: bool = False,
        origin: str | None = None,
        site: bytes = b"",
        navigates: bool = False,
    ) -> gates.Pass:
        kept = [(b"Origin", origin.encode())] if origin else []
        request = heads.Request(
            b"GET",
            host=b"h:1",
            authorization=authorization,
            token=header,
            cookie_token=cookie,
            kept=kept,
            site=site,
            navigates=navigates,
        )
        return self.gate.check(request, targets.Target(ID, 1, b"/", b"", query), public=public)


@pytest.fixture
def site() -> Site:
    return Site()


def test_dev_mode_is_open() -> None:
    """Nothing is asked for, and nothing in `Authorization` can be ours."""
    passed = Site(secret="").check("Bearer anything")
    assert passed == gates.Pass(authorization=True, principal=None)


def test_credentials_of_the_api(site: Site) -> None:
    """A client's token and the sandbox's own open it for their owner, and the server sees neither."""
    for authorization in (site.jwt(), site.sandbox()):
        for _ in range(2):  # the second time it is known
            passed = site.check(authorization)
            assert passed.principal is not None
            assert passed.principal.client_id is not None
            assert not passed.authorization


@pytest.mark.parametrize("authorization", [None, "", "Basic YTpi", "Bearer x", "Bearer a.b.c"])
def test_no_credential(site: Site, authorization: str | None) -> None:
    """A private port needs one of ours."""
    with pytest.raises(errors.Unauthenticated):
        site.check(authorization)
    with pytest.raises(errors.Forbidden):
        site.check(site.sandbox(OTHER))


def test_a_token_that_was_believed_ends(site: Site) -> None:
    """What was verified once is not believed beyond its end, nor for another sandbox."""
    authorization = site.sandbox(seconds=30)
    site.check(authorization)
    site.clock.move(31)
    with pytest.raises(errors.Unauthenticated) as caught:
        site.check(authorization)
    assert caught.value.fields["reason"] == "expired"


def test_what_is_remembered_is_bounded(site: Site) -> None:
    """Any number of tokens does no harm."""
    for number in range(gates.MAX_CACHED + 2):
        site.check(f"Bearer {workers.sign(site.clock.now(), jti=f'j{number}')}")
    assert len(site.gate._known) <= gates.MAX_CACHED


def test_traffic_tokens(site: Site) -> None:
    """They come by header, query or cookie; one that does not hold is an error, but a stale cookie is none."""
    token = site.traffic()
    assert token != site.traffic(OTHER)
    assert site.check(header=token) == gates.Pass(authorization=False, principal=None)
    assert site.check(query=token) == gates.Pass(authorization=False, principal=None, cookie=token)
    assert site.check(cookie=token) == gates.Pass(authorization=False, principal=None)
    for wrong in ("", "x", "ä", site.traffic(OTHER), token + "x"):
        for way in ({"header": wrong}, {"query": wrong}, {"cookie": wrong}):
            with pytest.raises(errors.Unauthenticated):
                site.check(**way)  # type: ignore[arg-type] # one of three parameters that are text
    assert site.check(site.jwt(), cookie="stale").principal is not None


def test_a_page_of_another_origin_cannot_use_a_cookie(site: Site) -> None:
    """Hosts of all sandboxes are one site to a browser, which sends the cookie for requests of its neighbours."""
    token = site.traffic()
    assert site.check(cookie=token, origin="http://h:1").principal is None
    for origin in ("http://evil", "null", "https://h"):
        with pytest.raises(errors.Forbidden):
            site.check(cookie=token, origin=origin)
        assert site.check(header=token, origin=origin).principal is None


@pytest.mark.parametrize("way", ["public", "token"])
def test_authorization_that_is_none_of_ours_is_the_servers(site: Site, way: str) -> None:
    """On a public port, or beside a traffic token; of ours it sees none, not even one that has ended."""

    def seen(authorization: str | None) -> bool:
        header = site.traffic() if way == "token" else None
        return site.check(authorization, public=way == "public", header=header).authorization

    ended = site.sandbox(seconds=-5)
    assert seen("Basic YTpi")
    assert seen("Bearer opaque")
    foreign = Site(secret="another secret of thirty-two bytes!")
    assert seen("Bearer " + jwt.encode({"alg": "HS256"}, {"client_id": "alice"}, FOREIGN_KEY))
    assert not seen(foreign.sandbox())  # of no use to anybody but us, whoever signed it
    assert not seen(None)
    for ours in (site.jwt(), site.sandbox(), site.sandbox(OTHER), ended):
        assert not seen(ours)
    old = site.jwt()
    site.clock.move(100_000)
    assert not seen(old)


def test_reasons_that_mean_foreign_exist() -> None:
    """They are among the reasons that there are."""
    assert set(claims.REASONS) >= gates._FOREIGN


def test_the_cookie() -> None:
    """It goes to the port it is for, to no script, and with TLS over nothing else."""
    target = targets.Target(ID, 1, b"/", b"/sandboxes/x/proxy/1")
    name, value = gates.cookie("t", target, "https")
    assert (name, value) == (
        b"Set-Cookie",
        b"__traforo_traffic=t; Path=/sandboxes/x/proxy/1; HttpOnly; SameSite=Lax; Secure",
    )
    assert b"Path=/; HttpOnly; SameSite=Lax" in gates.cookie("t", targets.Target(ID, 1, b"/", b""), "http")[1]


@pytest.mark.parametrize("form", ["Token {}", "Bearer\t{}", "Bearer {},", "bearer  {} ", "x={}; y", "Bearer a.b.c {}"])
def test_a_misspelled_credential_is_still_ours(site: Site, form: str) -> None:
    """However it is written down, a token that somebody here has signed is not shown to a server."""
    for token in (site.jwt(), site.sandbox(), f"Bearer {site.traffic()}"):
        written = form.format(token.removeprefix("Bearer "))
        assert not site.check(written, public=True).authorization
        assert not site.check(written, header=site.traffic()).authorization


def test_a_token_of_somebody_else_in_any_form_is_not(site: Site) -> None:
    """What nobody here has signed is the server's business."""
    for foreign in ("Basic YTpi", "Token abc", "Bearer a.b.c", "Digest a=1.2.3, b=4.5.6"):
        assert site.check(foreign, public=True).authorization


@pytest.mark.parametrize("whose", [b"same-site", b"cross-site"])
def test_pages_of_other_sandboxes_cannot_use_a_cookie(site: Site, whose: bytes) -> None:
    """All sandboxes are one site to a browser; scripts and images are asked for without `Origin`, links are followed."""
    with pytest.raises(errors.Forbidden):
        site.check(cookie=site.traffic(), site=whose)
    assert site.check(cookie=site.traffic(), site=whose, navigates=True).principal is None
    assert site.check(cookie=site.traffic(), site=b"same-origin").principal is None
    assert site.check(cookie=site.traffic(), site=b"none", navigates=True).principal is None
