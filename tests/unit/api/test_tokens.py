import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.api import claims as claims_
from traforo.api import tokens
from traforo.domain import errors
from traforo.settings import groups

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
SANDBOX = "sbx_421aa90e079fa326b6494f812ad13e79_01K6Z8Q4T3V7WXYZ0123456789"


class Clock:
    """Time that stands still until it is set."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def authority(secret: str = SECRET, clock: Clock | None = None, **options: str) -> tokens.Authority:
    return tokens.Authority(groups.AuthSettings.model_validate({"jwt_secret": secret, **options}), clock or Clock())


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(claims: object, header: dict[str, Any] | None = None, secret: str = SECRET) -> str:
    """Sign by hand, so that the verifier is not checked against itself."""
    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT"} if header is None else header).encode())
    body = f"{head}.{encoded(json.dumps(claims).encode())}"
    return f"{body}.{encoded(hmac.digest(secret.encode(), body.encode(), hashlib.sha256))}"


def claims(**changes: object) -> dict[str, object]:
    found = {
        "client_id": "alice",
        "iss": "traforo",
        "aud": "traforo-api",
        "exp": NOW + 600,
        "iat": NOW,
        "jti": "01K6Z8Q4T3V7WXYZ0123456789",
    }
    return {name: value for name, value in (found | changes).items() if value is not ...}


def refusal(token: str | None, used: tokens.Authority | None = None) -> errors.Unauthenticated:
    with pytest.raises(errors.Unauthenticated, match="cannot accept the token") as caught:
        (used or authority()).verify_client(None if token is None else f"Bearer {token}")
    return caught.value


def test_good_token_is_accepted() -> None:
    """Six claims, HS256, a scheme in any case."""
    found = authority().verify_client("bearer " + signed(claims()))
    assert found == tokens.Claims("alice", "01K6Z8Q4T3V7WXYZ0123456789", NOW, NOW + 600)


def test_audience_may_be_a_list() -> None:
    """RFC 7519 allows several audiences."""
    assert authority().verify_client("Bearer " + signed(claims(aud=["x", "traforo-api"]))).client_id == "alice"


@pytest.mark.parametrize("name", ["client_id", "iss", "aud", "exp", "iat", "jti"])
def test_every_claim_is_required(name: str) -> None:
    """A token that leaves one out is refused."""
    reason = {"iss": "issuer", "aud": "audience"}.get(name, "claims")
    assert refusal(signed(claims(**{name: ...}))).fields == {"reason": reason}


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"iss": "other"}, "issuer"),
        ({"iss": ["traforo"]}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": "traforo-internal"}, "audience"),
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 3600}, "expired"),
        ({"exp": "tomorrow"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": float("inf")}, "claims"),
        ({"exp": float("nan")}, "claims"),
        ({"exp": -1}, "claims"),
        ({"iat": NOW + 5.1}, "not_yet_valid"),
        ({"iat": None}, "claims"),
        ({"nbf": NOW + 60}, "not_yet_valid"),
        ({"nbf": "x"}, "claims"),
        ({"client_id": ""}, "claims"),
        ({"client_id": 7}, "claims"),
        ({"client_id": "a\nb"}, "claims"),
        ({"client_id": "x" * 129}, "claims"),
        ({"jti": ""}, "claims"),
        ({"jti": {"a": 1}}, "claims"),
        ({"jti": "x" * 129}, "claims"),
    ],
)
def test_claim_that_does_not_hold(changes: dict[str, object], reason: str) -> None:
    """Each has its reason, and the message repeats no value."""
    error = refusal(signed(claims(**changes)))
    assert error.fields == {"reason": reason}
    assert "other" not in error.message


def test_clock_of_the_issuer_may_be_five_seconds_ahead() -> None:
    """Clocks differ by a little."""
    assert authority().verify_client("Bearer " + signed(claims(iat=NOW + 5))).issued_at == NOW + 5


def test_token_without_a_signature_is_refused() -> None:
    """`alg: none` is the oldest attack on JWT."""
    head, body = encoded(b'{"alg":"none","typ":"JWT"}'), encoded(json.dumps(claims()).encode())
    assert refusal(f"{head}.{body}.").fields == {"reason": "algorithm"}
    assert refusal(signed(claims(), {"alg": "none"})).fields == {"reason": "algorithm"}


@pytest.mark.parametrize("algorithm", ["RS256", "HS384", "HS512", "ES256", "hs256", "", "unknown"])
def test_no_other_algorithm_is_accepted(algorithm: str) -> None:
    """The header cannot choose how it is checked."""
    assert refusal(signed(claims(), {"alg": algorithm})).fields == {"reason": "algorithm"}


def test_changed_token_is_refused() -> None:
    """A claim that was changed after signing does not hold."""
    head, _, signature = signed(claims()).split(".")
    forged = encoded(json.dumps(claims(client_id="mallory")).encode())
    assert refusal(f"{head}.{forged}.{signature}").fields == {"reason": "signature"}
    assert refusal(signed(claims(), secret="f" * 32)).fields == {"reason": "signature"}


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b",
        "a.b.c",
        "....",
        "ä.b.c",
        "x" * 8193,
        signed([1]),
        signed("x"),
        signed(claims(), {"typ": "JWT"}),
        signed(claims(), {"alg": ["HS256"]}),
    ],
)
def test_what_is_no_jwt_is_refused(token: str) -> None:
    """Whatever it is, it is an answer and not a defect."""
    assert refusal(token).fields["reason"] in {"malformed", "algorithm"}


@given(st.text())
def test_any_text_is_refused_in_words(text: str) -> None:
    """No header makes the verifier fail in another way."""
    used = authority()
    for header in (text, f"Bearer {text}"):
        with pytest.raises(errors.Unauthenticated):
            used.verify_client(header)
        with pytest.raises(errors.Unauthenticated):
            used.verify_sandbox_token(header, SANDBOX)


@given(
    st.dictionaries(
        st.sampled_from(["client_id", "iss", "aud", "exp", "iat", "jti", "nbf", "sub"]),
        st.none() | st.text() | st.floats() | st.integers() | st.lists(st.text()),
    )
)
def test_any_claims_are_refused_in_words(changes: dict[str, Any]) -> None:
    """Nor does any value of a claim in a token whose signature holds."""
    outcome: object
    try:
        outcome = authority().verify_client("Bearer " + signed(claims(**changes))).client_id
    except errors.Unauthenticated as error:
        outcome = error.fields["reason"]
    assert outcome in [*claims_.REASONS, changes.get("client_id", "alice")]


@pytest.mark.parametrize(
    "header, reason",
    [
        (None, "missing"),
        ("", "missing"),
        ("Basic abc", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer  ", "malformed"),
    ],
)
def test_header_without_a_token(header: str | None, reason: str) -> None:
    """The error says what the header has to be."""
    with pytest.raises(errors.Unauthenticated, match="Bearer") as caught:
        authority().verify_client(header)
    assert caught.value.fields == {"reason": reason}


def test_configured_issuer_and_audience_count() -> None:
    """An operator's own names replace ours."""
    used = authority(jwt_issuer="me", jwt_audience="you")
    assert used.verify_client("Bearer " + signed(claims(iss="me", aud="you"))).client_id == "alice"
    assert refusal(signed(claims()), used).fields == {"reason": "issuer"}


def test_placement_says_who_where_and_for_how_long() -> None:
    """It carries the client's `jti` and its expiry, and holds for a minute at most."""
    clock = Clock()
    used = authority(clock=clock)
    token = used.sign_placement("alice", "j1", NOW + 600, "worker_1")
    assert token is not None
    assert used.verify_placement(token, "worker_1") == tokens.Placement("alice", "j1", NOW + 600, "worker_1")
    clock.time += tokens.PLACEMENT_SECONDS
    with pytest.raises(errors.Unauthenticated, match="expired"):
        used.verify_placement(token, "worker_1")


def test_placement_ends_with_the_token_it_was_made_for() -> None:
    """A redirect lengthens no credential."""
    clock = Clock()
    used = authority(clock=clock)
    token = used.sign_placement("alice", "j1", NOW + 3, "worker_1")
    assert token is not None
    clock.time += 3
    with pytest.raises(errors.Unauthenticated, match="expired"):
        used.verify_placement(token, "worker_1")


def test_placement_is_for_one_worker() -> None:
    """Another worker refuses it, else one `jti` could be used up on each."""
    used = authority()
    token = used.sign_placement("alice", "j1", NOW + 600, "worker_1")
    assert token is not None
    with pytest.raises(errors.Unauthenticated) as caught:
        used.verify_placement(token, "worker_2")
    assert caught.value.fields == {"reason": "wrong_subject"}


def test_sandbox_token_opens_one_sandbox_until_its_time() -> None:
    """For another sandbox, or later, it is nothing."""
    clock = Clock()
    used = authority(clock=clock)
    header = f"Bearer {used.sign_sandbox_token(SANDBOX, 'alice', NOW + 60)}"
    assert used.verify_sandbox_token(header, SANDBOX) == tokens.SandboxGrant(SANDBOX, "alice", NOW + 60)
    with pytest.raises(errors.Forbidden):
        used.verify_sandbox_token(header, SANDBOX[:-1] + "8")
    clock.time += 60
    with pytest.raises(errors.Unauthenticated, match="expired"):
        used.verify_sandbox_token(header, SANDBOX)


def test_internal_token_is_short_and_new_each_time() -> None:
    """45 seconds, for one worker, with an id of its own."""
    clock = Clock()
    used = authority(clock=clock)
    first, second = (f"Bearer {used.sign_internal('worker_1')}" for _ in range(2))
    found = used.verify_internal(first, "worker_1")
    assert (found.worker_id, found.expires_at) == ("worker_1", NOW + 45)
    assert used.verify_internal(second, "worker_1").jti != found.jti
    with pytest.raises(errors.Unauthenticated):
        used.verify_internal(first, "worker_2")
    clock.time += 45
    with pytest.raises(errors.Unauthenticated, match="expired"):
        used.verify_internal(first, "worker_1")


def test_internal_token_cannot_be_made_to_last() -> None:
    """Whoever has the secret still gets no token that works for a day."""
    found = {"aud": "traforo-internal", "sub": "w", "iat": NOW, "exp": NOW + 86400, "jti": "j"}
    with pytest.raises(errors.Unauthenticated) as caught:
        authority().verify_internal("Bearer " + signed(found), "w")
    assert caught.value.fields == {"reason": "claims"}


def test_no_kind_of_token_passes_for_another() -> None:
    """Each is refused everywhere but at its own door."""
    used = authority()
    made = {
        "client": signed(claims(sub=SANDBOX)),
        "placement": used.sign_placement("alice", "j", NOW + 600, SANDBOX),
        "sandbox": used.sign_sandbox_token(SANDBOX, "alice", NOW + 40),
        "internal": used.sign_internal(SANDBOX),
    }
    doors: dict[str, Callable[[str], object]] = {
        "client": used.verify_client,
        "placement": lambda header: used.verify_placement(claims_.bearer(header), SANDBOX),
        "sandbox": lambda header: used.verify_sandbox_token(header, SANDBOX),
        "internal": lambda header: used.verify_internal(header, SANDBOX),
    }
    opened = set()
    for kind, token in made.items():
        for name, door in doors.items():
            try:
                door(f"Bearer {token}")
            except errors.Unauthenticated:
                continue
            opened.add((kind, name))
    assert opened == {(kind, kind) for kind in made}


def test_derived_keys_are_not_the_secret() -> None:
    """Somebody who may issue client tokens with a stolen `typ` still signs no placement."""
    forged = signed(
        {
            "iss": "traforo",
            "aud": "traforo-placement",
            "sub": "w",
            "client_id": "a",
            "jti": "j",
            "iat": NOW,
            "exp": NOW + 9,
            "token_exp": NOW + 9,
        },
        {"alg": "HS256", "typ": "traforo-placement+jwt"},
    )
    with pytest.raises(errors.Unauthenticated) as caught:
        authority().verify_placement(forged, "w")
    assert caught.value.fields == {"reason": "signature"}


def test_sandbox_token_is_told_from_a_clients() -> None:
    """By its header alone, so that the right check can be made."""
    used = authority()
    assert tokens.is_sandbox_token(f"Bearer {used.sign_sandbox_token(SANDBOX, 'alice', NOW + 60)}")
    assert not tokens.is_sandbox_token("Bearer " + signed(claims()))
    assert not tokens.is_sandbox_token("Bearer x")
    with pytest.raises(errors.Unauthenticated):
        tokens.is_sandbox_token(None)


GRANT = tokens.FileGrant(SANDBOX, "alice", "GET", b"/tmp/\xff", "user", 5, NOW + 60)


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_token_of_a_file_says_what_it_allows(secret: str) -> None:
    """Path, method, user and limit come back as they were signed, with and without a secret, until their time."""
    clock = Clock()
    used = authority(secret, clock)
    least = tokens.FileGrant(SANDBOX, None, "PUT", b"/f", None, None, NOW + 60)
    for grant in (GRANT, least):
        token = used.sign_file(grant)
        assert used.verify_file(token, SANDBOX) == grant
        with pytest.raises(errors.Unauthenticated) as caught:
            used.verify_file(token, SANDBOX[:-1] + "A")
        assert caught.value.fields == {"reason": "wrong_subject"}
        clock.time = NOW + 60
        with pytest.raises(errors.Unauthenticated):
            used.verify_file(token, SANDBOX)
        clock.time = NOW


def test_token_of_a_file_is_for_files_alone() -> None:
    """No other kind passes for it, nor it for another; without a secret it ends with the process."""
    used = authority()
    token = used.sign_file(GRANT)
    others = [used.sign_sandbox_token(SANDBOX, "alice", NOW + 60), used.sign_placement("alice", "j", NOW + 60, "w")]
    for other in [*others, signed(claims())]:
        with pytest.raises(errors.Unauthenticated):
            used.verify_file(str(other), SANDBOX)
    with pytest.raises(errors.Unauthenticated):
        used.verify_sandbox_token(f"Bearer {token}", SANDBOX)
    with pytest.raises(errors.Unauthenticated):
        used.verify_client(f"Bearer {token}")
    with pytest.raises(errors.Unauthenticated):
        authority("").verify_file(authority("").sign_file(GRANT), SANDBOX)


def test_dev_mode_signs_nothing() -> None:
    """Without a secret there is nothing to sign with, and asking to verify is a defect."""
    used = authority("")
    assert used.mode == "dev"
    assert used.sign_placement("a", "j", NOW + 1, "w") is None
    assert used.sign_sandbox_token(SANDBOX, "a", NOW + 1) is None
    assert used.sign_internal("w") is None
    with pytest.raises(errors.Internal):
        used.verify_client("Bearer " + signed(claims()))


def test_prod_mode_is_a_secret() -> None:
    """Nothing else switches it on."""
    assert authority().mode == "prod"


def test_tokens_of_ours_are_small() -> None:
    """A placement travels in a URL."""
    used = authority()
    token = used.sign_placement("c" * tokens.MAX_ID, "j" * tokens.MAX_ID, NOW + 600, "w" * 128)
    assert token is not None
    assert len(token) < 1200
