"""What all interpreters of a sandbox may cost together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.interpreters import allowances, marks

NONCE = b"0" * marks.NONCE_DIGITS


def piece(kind: bytes, place: int, payload: bytes) -> bytes:
    return b"\0%b%b%d%04d%b" % (NONCE, kind, place, len(payload), payload)


def test_a_burst_is_free_and_the_rest_is_not() -> None:
    """Little is never held up; what goes on takes a third of the time, however many share it."""
    shared = allowances.Allowance()
    assert shared.spend(allowances.BURST_SECONDS / 2, 100.0) == 0
    now, spent, began = 100.0, 0.0, 100.0
    while now < 110.0:
        rest = max(shared.spend(0.004, now + 0.004), shared.spend(0.004, now + 0.008))
        spent += 0.008
        now += 0.008 + rest
    assert spent / (now - began) <= allowances.TIME_SHARE + 0.01
    assert shared.spend(0.001, now + 10) == 0


def test_who_comes_next_rests_as_well() -> None:
    """What one has spent counts for all others before they begin, and fades."""
    shared = allowances.Allowance()
    assert shared.rest(5.0) == 0
    shared.spend(0.2, 5.0)
    rest = shared.rest(5.0)
    assert rest == min((0.2 - allowances.BURST_SECONDS) / allowances.TIME_SHARE, allowances.MAX_REST_SECONDS)
    assert 0 < shared.rest(5.3) < rest
    assert shared.rest(6.0) == 0


def test_no_rest_is_endless() -> None:
    """One answer that took for ever makes nobody wait for ever."""
    assert allowances.Allowance().spend(1000.0, 1.0) == allowances.MAX_REST_SECONDS


def test_unfinished_answers_share_one_room() -> None:
    """An answer for which there is no room beside those of others is dropped; finished ones and ends give room back."""
    shared = allowances.Allowance()
    one, other = marks.Parser(NONCE, shared), marks.Parser(NONCE, shared)
    part = b"x" * 4000
    begun = piece(b"R", 1, part) + piece(b"R", 0, part) * (marks.MAX_MESSAGE_BYTES // 4000 - 10)
    assert one.feed(begun, more=False) == []
    assert other.feed(begun, more=False) == []
    third = marks.Parser(NONCE, shared)
    assert third.feed(begun + piece(b"R", 2, b"end"), more=False) == []
    assert third.feed(piece(b"H", 3, b"1.0"), more=False) == [marks.Message("H", b"1.0")]
    assert shared.unfinished <= allowances.MAX_UNFINISHED_BYTES
    found = one.feed(piece(b"R", 2, b"end"), more=False)
    assert len(found) == 1
    other.close()
    assert shared.unfinished == 0
    assert len(third.feed(begun + piece(b"R", 2, b"end"), more=False)) == 1


@given(
    st.lists(st.tuples(st.sampled_from([b"R", b"E", b"D"]), st.integers(0, 3), st.binary(max_size=200)), max_size=60)
)
def test_what_is_held_is_what_is_counted(pieces: list[tuple[bytes, int, bytes]]) -> None:
    """Whatever order pieces come in, nothing is counted twice and nothing for ever."""
    shared = allowances.Allowance()
    parser = marks.Parser(NONCE, shared)
    for kind, place, payload in pieces:
        parser.feed(piece(kind, place, payload), more=False)
        assert shared.unfinished == len(parser._whole)
    parser.close()
    assert shared.unfinished == 0
