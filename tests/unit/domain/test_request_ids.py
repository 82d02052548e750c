"""Request ids are ULIDs, however they are made."""

from __future__ import annotations

import time

import ulid

from traforo.domain import ids


def test_request_ids_are_ulids_of_now() -> None:
    """Each reads as one, in its own spelling, with the time of its making, and no two are the same."""
    before = time.time()
    made = [ids.new_request_id() for _ in range(1000)]
    after = time.time()
    read = [ulid.ULID.from_str(text) for text in made]
    assert [str(one) for one in read] == made
    assert all(before - 0.001 <= one.timestamp <= after for one in read)
    assert len(set(made)) == 1000
