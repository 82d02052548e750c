"""Names of users and groups of a sandbox."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import owners

PASSWD = b"root:x:0:0::/root:/bin/sh\nbroken\nuser:x:1000:1000::/home/user:/bin/sh\nbad:x:-1:0\nhuge:x:99999999999:\n"


def test_find() -> None:
    """A name is looked up, and lines that make no sense are none."""
    assert [owners.find(PASSWD, name) for name in ("root", "user", "bad", "huge", "broken", "use")] == [
        0, 1000, None, None, None, None,
    ]  # fmt: skip


def test_numbers() -> None:
    """Ids are taken as numbers or digits, and never the one that means "leave it"."""
    assert [owners.number(given) for given in (0, 1000, "7", "user", "٣", "-1")] == [0, 1000, 7, None, None, None]
    for wrong in (-1, owners.MAX_ID + 1, "99999999999999"):
        with pytest.raises(errors.InvalidRequest):
            owners.number(wrong)


@given(st.binary(max_size=200), st.text(st.characters(codec="utf-8"), max_size=10))
def test_any_content(content: bytes, name: str) -> None:
    """The file is the sandbox's to write."""
    found = owners.find(content, name)
    assert found is None or 0 <= found <= owners.MAX_ID
