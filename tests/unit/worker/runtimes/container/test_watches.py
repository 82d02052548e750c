"""Records of a watch: read in pieces of any size, and refused in one way whatever they hold."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, watches

Kind = contract.ChangeKind
NUMBERS = {Kind.CREATED: 1, Kind.MODIFIED: 2, Kind.ATTRIBUTES: 3, Kind.DELETED: 4, Kind.OVERFLOW: 5}


def record(kind: int, path: bytes = b"", origin: bytes = b"", /, **wrong: int) -> bytes:
    """Encode one as the process in the sandbox does, or with something wrong in it."""
    values = {"length": 16 + len(path) + len(origin), "kind": kind, "directory": 0, "error": 0}
    values |= {"path": len(path), "origin": len(origin), **wrong}
    return struct.pack("<IBBHII", *values.values()) + path + origin


READY = record(0)
names = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name) and name not in {b".", b".."})
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5]), paths, st.one_of(st.just(b""), paths), st.booleans())),
    st.integers(1, 50),
)
def test_changes_come_as_they_were_sent(wanted: list[tuple[int, bytes, bytes, bool]], size: int) -> None:
    """However the bytes are cut, each once and in order, with absolute paths."""
    stream = READY + b"".join(
        record(kind, path, origin, directory=directory) for kind, path, origin, directory in wanted
    )
    records = watches.Records("/data")
    found = [change for at in range(0, len(stream), size) for change in records.feed(stream[at : at + size])]
    assert records.ready
    assert [NUMBERS[change.kind] for change in found] == [kind for kind, *_ in wanted]
    for change, (kind, path, origin, directory) in zip(found, wanted, strict=True):
        if kind == NUMBERS[Kind.OVERFLOW]:
            assert change == contract.Change(Kind.OVERFLOW, "/data", True)
            continue
        assert change.path.encode(errors="surrogateescape") == b"/data/" + path
        assert change.directory == directory
        moved = "/data/" + origin.decode(errors="surrogateescape") if origin and kind == 1 else None
        assert change.moved_from == moved


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_changes_or_malformed(data: bytes, begun: bool) -> None:
    """Nothing that an init could send raises anything else, or leads out of the directory."""
    records = watches.Records("/")
    try:
        if begun:
            records.feed(READY)
        for change in records.feed(data):
            assert change.path.startswith("/")
            assert not {"..", "."} & set(change.path.split("/"))
    except (channels.Closed, channels.Refused):
        return


@pytest.mark.parametrize(
    "stream",
    [
        record(1, b"before it began"),
        READY + READY,
        READY + record(6, b"a"),
        READY + record(1),
        READY + record(1, b"/a"),
        READY + record(1, b"a//b"),
        READY + record(1, b"a/"),
        READY + record(1, b"../a"),
        READY + record(4, b"a/../../b"),
        READY + record(4, b"a\0b"),
        READY + record(1, b"a", b"../b"),
        READY + record(1, b"a", length=17 + (1 << 31)),
        READY + record(1, b"a", path=4096, length=16 + 4096),
        READY + record(1, b"", path=0xFFFFFFFF, origin=17, length=32),
    ],
)
def test_what_cannot_be_is_refused(stream: bytes) -> None:
    """A path that leads elsewhere, an unknown kind, a length that lies: at once, not when more comes."""
    records = watches.Records("/data")
    with pytest.raises(channels.Closed):
        records.feed(stream)


def test_a_watch_that_could_not_begin_says_why() -> None:
    """As the kernel told the process."""
    with pytest.raises(channels.Refused) as caught:
        watches.Records("/data").feed(record(0, error=errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


def test_what_is_incomplete_is_kept() -> None:
    """But not more than one record can have."""
    records = watches.Records("/data")
    whole = READY + record(2, b"x" * 4095)
    assert records.feed(whole[:-1]) == []
    assert records.feed(whole[-1:]) == [contract.Change(Kind.MODIFIED, "/data/" + "x" * 4095)]
