"""Which user ids are in use on a host, as its workers tell each other."""

import os
from pathlib import Path

import pytest

from traforo.worker import doctors
from traforo.worker.hosts import claims

FIRST = claims.Range(0x10000, 0x30000, "/one")
SECOND = claims.Range(0x20000, 0x40000, "/two")
BEHIND = claims.Range(0x30000, 0x40000, "/three")


def test_others_with_the_same_ids_are_told(tmp_path: Path) -> None:
    """Those that share some; not those beside them, and nobody of itself."""
    one, others = claims.claim(FIRST, tmp_path / "uids")
    assert others == []
    two, others = claims.claim(SECOND, tmp_path / "uids")
    assert others == [FIRST]
    three, others = claims.claim(BEHIND, tmp_path / "uids")
    assert others == [SECOND]
    again, others = claims.claim(FIRST, tmp_path / "uids")
    assert others == [SECOND]
    for descriptor in (one, two, three, again):
        os.close(descriptor)


def test_a_claim_ends_with_the_last_who_has_it(tmp_path: Path) -> None:
    """A copy in another process holds it as well; then nothing of it stays."""
    descriptor, _ = claims.claim(FIRST, tmp_path)
    copy = os.dup(descriptor)
    os.close(descriptor)
    assert claims.claimed(tmp_path) == [FIRST]
    os.close(copy)
    assert claims.claimed(tmp_path) == []
    descriptor, others = claims.claim(SECOND, tmp_path)
    assert (others, len([path for path in tmp_path.iterdir() if path.name != "gate"])) == ([], 1)
    os.close(descriptor)


def test_what_is_no_claim_is_passed_over(tmp_path: Path) -> None:
    """Whatever else lies there."""
    (tmp_path / "something").write_text("else")
    (tmp_path / "1-x-2").write_text("else")
    descriptor, others = claims.claim(FIRST, tmp_path)
    assert (others, claims.claimed(tmp_path)) == ([], [FIRST])
    os.close(descriptor)
    assert claims.claimed(tmp_path / "none") == []


@pytest.mark.parametrize(
    "claimed, ok, detail", [([FIRST, BEHIND], True, ""), ([FIRST, SECOND], False, "/one, /two"), ([], True, "")]
)
def test_the_doctor_sees_it(claimed: list[claims.Range], ok: bool, detail: str) -> None:
    """And says what it means."""
    found = doctors._uids(claimed)
    assert (found.ok, found.detail, bool(found.cost)) == (ok, detail, not ok)
