import time

import pytest
from joserfc import jwk, jwt

from traforo.api import principals, replays, tokens
from traforo.domain import clocks, errors
from traforo.settings import groups

SECRET = "0123456789abcdef0123456789abcdef"
SANDBOX = "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789"
OTHER = SANDBOX[:-1] + "8"


@pytest.fixture
def authority() -> tokens.Authority:
    return tokens.Authority(groups.AuthSettings.model_validate({"jwt_secret": SECRET}), clocks.SystemClock())


@pytest.fixture
def dev() -> tokens.Authority:
    return tokens.Authority(groups.AuthSettings(), clocks.SystemClock())


def header(client_id: str = "alice", jti: str = "j1") -> str:
    now = time.time()
    claims = {"client_id": client_id, "iss": "traforo", "aud": "traforo-api", "iat": now, "exp": now + 60, "jti": jti}
    return "Bearer " + jwt.encode({"alg": "HS256"}, claims, jwk.OctKey.import_key(SECRET))


def test_dev_mode_knows_one_caller(dev: tokens.Authority) -> None:
    """No credential is asked for, and whatever is sent is not looked at."""
    guard = replays.ReplayGuard()
    assert principals.client(dev, None) == principals.DEV
    assert principals.creator(dev, authorization="nonsense", placement="nonsense", worker_id="w") == principals.DEV
    assert principals.opener(dev, None, SANDBOX) == principals.DEV
    assert principals.worker(dev, guard, time.time(), authorization=None, worker_id="w") == principals.DEV
    assert principals.DEV.may_open(SANDBOX, None)
    assert len(guard) == 0


def test_client_is_known_by_its_token(authority: tokens.Authority) -> None:
    """Its id, and the `jti` that a create would use up."""
    found = principals.client(authority, header())
    assert (found.client_id, found.via, found.jti) == ("alice", "jwt", "j1")


def test_creator_comes_by_placement_or_directly(authority: tokens.Authority) -> None:
    """Either way the same `jti` is to be used up, so a token makes one sandbox only."""
    expires_at = time.time() + 60
    placement = authority.sign_placement("alice", "j1", expires_at, "w")
    placed = principals.creator(authority, authorization=None, placement=placement, worker_id="w")
    direct = principals.creator(authority, authorization=header(), placement=None, worker_id="w")
    assert (placed.client_id, placed.via, placed.jti, placed.expires_at) == ("alice", "placement", "j1", expires_at)
    assert (direct.client_id, direct.via, direct.jti) == ("alice", "jwt", "j1")


def test_bad_placement_is_not_made_good_by_a_token(authority: tokens.Authority) -> None:
    """A caller who presents both is judged by the placement."""
    with pytest.raises(errors.Unauthenticated):
        principals.creator(authority, authorization=header(), placement="x", worker_id="w")


def test_opener_has_the_token_of_the_sandbox_or_of_its_owner(authority: tokens.Authority) -> None:
    """Both lead to the owner; the sandbox token to that one sandbox only."""
    own = f"Bearer {authority.sign_sandbox_token(SANDBOX, 'alice', time.time() + 60)}"
    by_token = principals.opener(authority, own, SANDBOX)
    by_jwt = principals.opener(authority, header(), SANDBOX)
    assert (by_token.client_id, by_token.via, by_token.sandbox_id) == ("alice", "sandbox_token", SANDBOX)
    assert (by_jwt.client_id, by_jwt.via, by_jwt.sandbox_id) == ("alice", "jwt", None)
    with pytest.raises(errors.Forbidden):
        principals.opener(authority, own, OTHER)
    with pytest.raises(errors.Unauthenticated):
        principals.opener(authority, None, SANDBOX)


def test_worker_proves_itself_once(authority: tokens.Authority) -> None:
    """An internal token is used up at the control plane."""
    guard, sent = replays.ReplayGuard(), f"Bearer {authority.sign_internal('w')}"
    found = principals.worker(authority, guard, time.time(), authorization=sent, worker_id="w")
    assert (found.client_id, found.via) == (None, "internal")
    with pytest.raises(errors.Unauthenticated, match="used before"):
        principals.worker(authority, guard, time.time(), authorization=sent, worker_id="w")


@pytest.mark.parametrize(
    "principal, owner, expected",
    [
        (principals.Principal("alice", "jwt"), "alice", True),
        (principals.Principal("alice", "jwt"), "bob", False),
        (principals.Principal("alice", "jwt"), None, False),
        (principals.Principal("alice", "sandbox_token", sandbox_id=SANDBOX), "alice", True),
        (principals.Principal("alice", "sandbox_token", sandbox_id=OTHER), "alice", False),
        (principals.Principal("alice", "sandbox_token", sandbox_id=SANDBOX), "bob", False),
        (principals.Principal(None, "internal"), None, False),
        (principals.Principal(None, "internal"), "alice", False),
        (principals.DEV, "alice", True),
    ],
)
def test_who_may_open_what(principal: principals.Principal, owner: str | None, expected: bool) -> None:
    """A sandbox is its owner's; one without an owner, from a time in dev mode, is nobody's in prod."""
    assert principal.may_open(SANDBOX, owner) is expected
    if not expected:
        with pytest.raises(errors.Forbidden, match="belongs to another client") as caught:
            principal.check(SANDBOX, owner)
        assert caught.value.fields == {"kind": "sandbox", "id": SANDBOX}
