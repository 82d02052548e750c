"""Conditions of requests for files."""

import os
from email import utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.files import conditions
from traforo.worker.files.conditions import Conditions, Verdict


def facts(*, seconds: int = 1_700_000_000, size: int = 5, inode: int = 7) -> os.stat_result:
    """Return facts of a file."""
    values = [0o100644, inode, 1, 1, 0, 0, size, seconds, seconds, seconds]
    return os.stat_result([*values, *[float(seconds)] * 3, *[seconds * 1_000_000_000] * 3])


FILE = facts()
TAG = conditions.etag(FILE)
DATE = conditions.last_modified(FILE)
LATER, EARLIER = utils.formatdate(1_700_000_001, usegmt=True), utils.formatdate(1_699_999_999, usegmt=True)


def test_tags_differ() -> None:
    """Time, size and inode each make another version."""
    others = [facts(seconds=1), facts(size=6), facts(inode=8)]
    assert len({TAG, *map(conditions.etag, others)}) == 4


@pytest.mark.parametrize("seconds", [-(2**40), 0, 2**40, 2**62 // 10**9])
def test_dates_of_any_year(seconds: int) -> None:
    """A file may claim any time; it is told as near as it can be written."""
    assert conditions.last_modified(facts(seconds=seconds)).endswith("GMT")


@pytest.mark.parametrize(
    "wanted, expected",
    [
        (Conditions(), Verdict.GO_ON),
        (Conditions(match=TAG), Verdict.GO_ON),
        (Conditions(match='"x", ' + TAG), Verdict.GO_ON),
        (Conditions(match="*"), Verdict.GO_ON),
        (Conditions(match='"x"'), Verdict.FAILED),
        (Conditions(match="W/" + TAG), Verdict.FAILED),
        (Conditions(none_match=TAG), Verdict.UNCHANGED),
        (Conditions(none_match="W/" + TAG), Verdict.UNCHANGED),
        (Conditions(none_match='"x"'), Verdict.GO_ON),
        (Conditions(none_match="nonsense"), Verdict.GO_ON),
        (Conditions(modified_since=DATE), Verdict.UNCHANGED),
        (Conditions(modified_since=EARLIER), Verdict.GO_ON),
        (Conditions(modified_since="yesterday"), Verdict.GO_ON),
        (Conditions(modified_since=DATE, none_match='"x"'), Verdict.GO_ON),
        (Conditions(unmodified_since=EARLIER), Verdict.FAILED),
        (Conditions(unmodified_since=LATER), Verdict.GO_ON),
        (Conditions(unmodified_since=EARLIER, match=TAG), Verdict.GO_ON),
    ],
)
def test_reading(wanted: Conditions, expected: Verdict) -> None:
    """Tags go before dates, and what cannot be read is no condition."""
    assert conditions.read(wanted, FILE) is expected


@pytest.mark.parametrize(
    "wanted, there, expected",
    [
        (Conditions(), True, Verdict.GO_ON),
        (Conditions(match=TAG), True, Verdict.GO_ON),
        (Conditions(match=TAG), False, Verdict.FAILED),
        (Conditions(match="*"), False, Verdict.FAILED),
        (Conditions(match='"x"'), True, Verdict.FAILED),
        (Conditions(none_match="*"), True, Verdict.FAILED),
        (Conditions(none_match="*"), False, Verdict.GO_ON),
        (Conditions(none_match=TAG), True, Verdict.FAILED),
        (Conditions(unmodified_since=EARLIER), True, Verdict.FAILED),
        (Conditions(unmodified_since=DATE), True, Verdict.GO_ON),
    ],
)
def test_writing(wanted: Conditions, there: bool, expected: Verdict) -> None:
    """A write is refused where what it names is not there, or what it excludes is."""
    assert conditions.write(wanted, FILE if there else None) is expected


@pytest.mark.parametrize(
    "header, holds",
    [("", True), (TAG, True), ('"x"', False), ("W/" + TAG, False), (DATE, True), (LATER, False), ("nonsense", False)],
)
def test_ranges_of_one_version(header: str, holds: bool) -> None:
    """A range of another version than the caller has would make a file that never was."""
    assert conditions.range_holds(Conditions(only_range=header), FILE) is holds


@given(st.text(max_size=50))
def test_any_header(header: str) -> None:
    """No header is a defect, and none but `*` and the tag itself names a version."""
    wanted = Conditions(header, header, header, header, header)
    conditions.read(wanted, FILE)
    conditions.write(wanted, FILE)
    conditions.range_holds(wanted, FILE)
    assert conditions.names(header, TAG) is (header.strip() == "*")
