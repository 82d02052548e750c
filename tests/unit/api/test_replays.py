import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from traforo.api import replays
from traforo.domain import errors


def test_id_works_once() -> None:
    """The second use is refused, with a reason that metrics can count."""
    guard = replays.ReplayGuard()
    guard.use("a", 100.0, 0.0)
    with pytest.raises(errors.Unauthenticated, match="used before") as caught:
        guard.use("a", 100.0, 1.0)
    assert caught.value.fields == {"reason": "replayed"}


def test_expired_token_is_refused_however_new_its_id() -> None:
    """A guard never forgets an id while its token could still be accepted."""
    with pytest.raises(errors.Unauthenticated) as caught:
        replays.ReplayGuard().use("a", 100.0, 100.0)
    assert caught.value.fields == {"reason": "expired"}


def test_ids_are_forgotten_with_their_tokens() -> None:
    """Memory is bounded by what is unexpired."""
    guard = replays.ReplayGuard()
    guard.use("a", 10.0, 0.0)
    guard.use("b", 20.0, 0.0)
    guard.use("c", 30.0, 15.0)
    assert len(guard) == 2


def test_full_guard_refuses_rather_than_forgets() -> None:
    """Whoever floods it cannot make an old token usable again; room returns as tokens expire."""
    guard = replays.ReplayGuard(capacity=2)
    guard.use("a", 10.0, 0.0)
    guard.use("b", 20.0, 0.0)
    with pytest.raises(errors.RateLimited):
        guard.use("c", 20.0, 1.0)
    with pytest.raises(errors.Unauthenticated, match="used before"):
        guard.use("a", 10.0, 1.0)
    guard.use("c", 20.0, 10.0)


def test_use_is_told_before_it_counts() -> None:
    """A use that could not be recorded is none: the caller may try again."""
    told: list[tuple[str, float]] = []

    def record(jti: str, expires_at: float) -> None:
        told.append((jti, expires_at))
        if len(told) == 1:
            raise OSError("disk full")

    guard = replays.ReplayGuard(on_use=record)
    with pytest.raises(OSError, match="disk full"):
        guard.use("a", 10.0, 0.0)
    guard.use("a", 10.0, 0.0)
    assert told == [("a", 10.0), ("a", 10.0)]


def test_restored_ids_stay_used() -> None:
    """A restart makes no token usable again; what has expired meanwhile is left out, and nothing is recorded anew."""
    told: list[str] = []
    guard = replays.ReplayGuard(on_use=lambda jti, _: told.append(jti))
    guard.restore([("a", 10.0), ("b", 5.0), ("a", 10.0)], now=5.0)
    assert (len(guard), told) == (1, [])
    with pytest.raises(errors.Unauthenticated, match="used before"):
        guard.use("a", 10.0, 6.0)


class Guarded(RuleBasedStateMachine):
    """The guard against a plain dictionary that never forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = replays.ReplayGuard()
        self.now = 0.0
        self.used: dict[str, float] = {}

    @rule(seconds=st.integers(0, 5))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(jti=st.sampled_from("abcdef"), life=st.integers(-1, 8))
    def use(self, jti: str, life: int) -> None:
        expires_at = self.now + life
        replayed = self.used.get(jti, 0.0) > self.now
        reason = "expired" if life <= 0 else "replayed" if replayed else None
        assert self.outcome(jti, expires_at) == reason
        if reason is None:
            self.used[jti] = expires_at

    def outcome(self, jti: str, expires_at: float) -> str | None:
        try:
            self.guard.use(jti, expires_at, self.now)
        except errors.Unauthenticated as error:
            return str(error.fields["reason"])
        return None

    @invariant()
    def remembers_no_more_than_needed(self) -> None:
        self.guard._expire(self.now)
        assert len(self.guard) == sum(expires_at > self.now for expires_at in self.used.values())


TestGuarded = Guarded.TestCase
