"""Idempotency keys: whose they are, how long they hold, how many there are."""

from __future__ import annotations

import asyncio

import pytest

from traforo.domain import errors
from traforo.worker.sandboxes import entries, repeats
from traforo.worker.sandboxes.repeats import Repeat, Repeats


def future() -> asyncio.Future[entries.Entry]:
    return asyncio.get_running_loop().create_future()


async def test_a_key_is_found_again_by_its_owner() -> None:
    """The same owner, key and request: the same result. Another owner's key is another key."""
    known, result = Repeats(), future()
    known.put("alice", Repeat("k", "f"), result, 0.0)
    assert known.find("alice", Repeat("k", "f"), 1.0) is result
    assert known.find("bob", Repeat("k", "f"), 1.0) is None
    assert known.find("alice", Repeat("l", "f"), 1.0) is None


async def test_a_key_belongs_to_one_request() -> None:
    """The same key with another request is a mistake that has to be told."""
    known = Repeats()
    known.put("alice", Repeat("k", "f"), future(), 0.0)
    with pytest.raises(errors.Conflict):
        known.find("alice", Repeat("k", "g"), 1.0)


async def test_a_key_is_forgotten_in_time() -> None:
    """Ten minutes after the create it is free."""
    known, result = Repeats(), future()
    known.put(None, Repeat("k", "f"), result, 0.0)
    assert known.find(None, Repeat("k", "f"), repeats.KEEP_SECONDS - 0.001) is result
    assert known.find(None, Repeat("k", "other"), repeats.KEEP_SECONDS) is None
    assert len(known) == 0


async def test_a_failed_create_can_be_tried_again() -> None:
    """An error and a cancellation free the key; a success keeps it."""
    known = Repeats()
    failed, cancelled, made = future(), future(), future()
    for key, result in (("failed", failed), ("cancelled", cancelled), ("made", made)):
        known.put(None, Repeat(key, "f"), result, 0.0)
    failed.set_exception(errors.NoCapacity("no"))
    cancelled.cancel()
    made.set_result(object())  # type: ignore[arg-type]  # any result will do
    await asyncio.sleep(0)
    assert known.find(None, Repeat("failed", "g"), 1.0) is None
    assert known.find(None, Repeat("cancelled", "g"), 1.0) is None
    assert known.find(None, Repeat("made", "f"), 1.0) is made


async def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room."""
    monkeypatch.setattr(repeats, "MAX_KEYS", 3)
    known = Repeats()
    for number in range(5):
        known.put(None, Repeat(str(number), "f"), future(), float(number))
    assert len(known) == 3
    assert known.find(None, Repeat("1", "f"), 5.0) is None
    assert known.find(None, Repeat("2", "f"), 5.0) is not None


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\nb", "\0"])
def test_a_key_is_printable_ascii(key: str) -> None:
    """Anything else is refused."""
    with pytest.raises(errors.InvalidRequest):
        repeats.check(key)


def test_a_key_may_be_long() -> None:
    """255 characters, spaces included."""
    assert repeats.check("a " * 127 + "b") == "a " * 127 + "b"
