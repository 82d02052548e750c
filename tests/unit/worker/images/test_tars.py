"""Reading tar streams, those of writers and those of attackers."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tar_streams as tar
from traforo.domain import errors
from traforo.worker.images import tars
from traforo.worker.images.tars import Entry, Kind


class Trickle:
    """A source that gives fewer bytes than asked for, as sockets and decompressors do."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def read(data: bytes, most: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    reader = tars.TarReader(Trickle(data, most))
    found = []
    for entry in reader:
        parts = []
        while part := reader.read(100):
            parts.append(part)
        found.append((entry, b"".join(parts)))
    return found


def names(data: bytes) -> list[bytes]:
    return [entry.name for entry, _ in read(data)]


def test_reads_each_kind_of_entry() -> None:
    """Kind, content, owner, mode, time and link target come out as they were written."""
    data = tar.stream(
        tar.directory(b"etc/", mode=0o2755, uid=3, gid=4, mtime=5),
        tar.file(b"etc/passwd", b"root", mode=0o4644, uid=1000, gid=65535, mtime=1_700_000_000),
        tar.symlink(b"link", b"../../etc"),
        tar.hardlink(b"again", b"etc/passwd"),
        tar.header(b"null", b"3"),
        tar.header(b"disk", b"4"),
        tar.header(b"fifo", b"6"),
        tar.header(b"contiguous", b"7"),
        tar.header(b"ancient", b"\0"),
        tar.header(b"ancient-directory/", b"\0"),
    )
    found = [(entry.name, entry.kind, content) for entry, content in read(data)]
    assert found == [
        (b"etc/", Kind.DIRECTORY, b""),
        (b"etc/passwd", Kind.FILE, b"root"),
        (b"link", Kind.SYMLINK, b""),
        (b"again", Kind.HARDLINK, b""),
        (b"null", Kind.SPECIAL, b""),
        (b"disk", Kind.SPECIAL, b""),
        (b"fifo", Kind.SPECIAL, b""),
        (b"contiguous", Kind.FILE, b""),
        (b"ancient", Kind.FILE, b""),
        (b"ancient-directory/", Kind.DIRECTORY, b""),
    ]
    passwd = read(data)[1][0]
    assert passwd == Entry(
        name=b"etc/passwd",
        kind=Kind.FILE,
        size=4,
        mode=0o4644,
        uid=1000,
        gid=65535,
        mtime_ns=1_700_000_000 * 10**9,
        link=b"",
        offset=1024,
    )
    assert read(data)[2][0].link == b"../../etc"


def test_goes_on_after_content_that_nobody_read() -> None:
    """Content and its padding are passed over."""
    data = tar.stream(tar.file(b"a", b"x" * 513), tar.file(b"b"))
    assert [entry.name for entry in tars.TarReader(io.BytesIO(data))] == [b"a", b"b"]


def test_long_names_of_gnu_and_pax() -> None:
    """Both ways to write a name that is too long for a header are read; pax counts more."""
    long = b"d/" * 300 + b"name"
    assert names(tar.stream(tar.gnu_long(long), tar.file(b"short"))) == [long]
    assert names(tar.stream(tar.pax({b"path": long}), tar.file(b"short"))) == [long]
    both = tar.stream(tar.pax({b"path": b"by pax"}), tar.gnu_long(b"by gnu"), tar.file(b"short"))
    assert names(both) == [b"by pax"]
    target = tar.stream(tar.gnu_long(long, b"K"), tar.symlink(b"link", b"short"))
    assert read(target)[0][0].link == long


def test_prefix_belongs_to_ustar_alone() -> None:
    """What GNU writes in the place of the prefix (times) is no name."""
    assert names(tar.stream(tar.header(b"name", prefix=b"before"))) == [b"before/name"]
    assert names(tar.stream(tar.header(b"name", prefix=b"000017", magic=b"ustar  \0"))) == [b"name"]


def test_an_extension_counts_for_one_entry() -> None:
    """What an extension header says is forgotten after the entry that follows it."""
    data = tar.stream(tar.pax({b"uid": b"7", b"mtime": b"1.5"}), tar.file(b"a"), tar.file(b"b"))
    found = [(entry.uid, entry.mtime_ns) for entry, _ in read(data)]
    assert found == [(7, 1_500_000_000), (0, 0)]


def test_size_comes_from_the_extension() -> None:
    """Files whose size does not fit the header are as long as the extension says."""
    data = tar.stream(tar.pax({b"size": b"3"}), tar.header(b"a", size=0) + tar.padded(b"abc"), tar.file(b"b"))
    assert [(entry.name, content) for entry, content in read(data)] == [(b"a", b"abc"), (b"b", b"")]


def test_global_extensions_change_nothing() -> None:
    """Container tools ignore them; a stream must not mean one thing there and another here."""
    data = tar.stream(tar.pax({b"path": b"evil", b"uid": b"1"}, b"g"), tar.file(b"a"))
    assert [(entry.name, entry.uid) for entry, _ in read(data)] == [(b"a", 0)]


def test_the_end_mark_ends_it() -> None:
    """What follows the two blocks of zeros is not looked at; a stream without them ends where it ends."""
    assert names(tar.stream(tar.file(b"a")) + tar.file(b"b")) == [b"a"]
    assert names(tar.file(b"a")) == [b"a"]
    assert names(b"") == []


def test_times_that_no_disk_holds() -> None:
    """A time before 1970 or far beyond every file system becomes the nearest that can be set."""
    data = tar.stream(
        tar.pax({b"mtime": b"-5"}), tar.file(b"a"), tar.pax({b"mtime": b"999999999999999999"}), tar.file(b"b")
    )
    assert [entry.mtime_ns for entry, _ in read(data)] == [0, (2**34 - 1) * 10**9]


@pytest.mark.parametrize(
    "data, why",
    [
        (b"\x01" * 512, "checksum"),
        (tar.header(b"a", checksum=1), "checksum"),
        (tar.header(b"a")[:300], "within a header"),
        (tar.header(b"a", size=10) + b"abc", "within an entry"),
        (tar.header(b"a", size=2**70), "within an entry"),
        (bytes(512) + tar.header(b"a"), "single block of zeros"),
        (tar.pax({b"path": b"x"}), "after an extension header"),
        (tar.gnu_long(b"x") * 17 + tar.file(b"a"), "extension headers in a row"),
        (tar.header(b"x", b"x", size=2**20 + 1), "larger than"),
        (tar.header(b"L", b"L", size=2**40), "larger than"),
        (tar.header(b"x", b"x", size=5) + tar.padded(b"hello"), "malformed"),
        (tar.header(b"x", b"x", size=6) + tar.padded(b"9 a=b\n"), "malformed"),
        (tar.header(b"x", b"x", size=7) + tar.padded(b"7 a=bcd"), "malformed"),
        (tar.pax({b"size": b"-1"}) + tar.file(b"a"), "size"),
        (tar.pax({b"uid": b"0x10"}) + tar.file(b"a"), "uid"),
        (tar.pax({b"mtime": b"today"}) + tar.file(b"a"), "mtime"),
    ],
)
def test_broken_streams_are_refused(data: bytes, why: str) -> None:
    """Whatever contradicts the format is an error that says what, not a guess."""
    with pytest.raises(errors.InvalidRequest, match=why):
        read(data)


@pytest.mark.parametrize(
    "data, why",
    [
        (tar.header(b"hole", b"S"), "sparse"),
        (tar.pax({b"GNU.sparse.major": b"1"}) + tar.file(b"hole"), "sparse"),
        (tar.header(b"odd", b"Z"), "unknown"),
        (tar.header(b"dump", b"D"), "unknown"),
        (tar.header(b"volume", b"V"), "unknown"),
    ],
)
def test_types_that_no_container_tool_writes_are_refused_by_name(data: bytes, why: str) -> None:
    """The error names the entry."""
    with pytest.raises(errors.InvalidRequest, match=why) as caught:
        read(data)
    assert caught.value.fields["entry"] in {"hole", "odd", "dump", "volume"}


def test_names_in_messages_are_printable_and_short() -> None:
    """A name of an archive cannot write lines or control a terminal through a log."""
    assert tars.shown(b"a\nb\x1b[31m\xff") == "a\\nb\\x1b[31m\\xff"
    assert tars.shown(b"x" * 4000) == "x" * 200 + "…"


def test_many_tiny_records_are_no_trap() -> None:
    """A full extension header of the smallest records is read in one pass."""
    records = b"6 a=b\n" * (2**20 // 6)
    data = tar.stream(tar.header(b"x", b"x", size=len(records)) + tar.padded(records), tar.file(b"a"))
    assert names(data) == [b"a"]


members = st.tuples(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=150
    ),
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(0, 2**40),
    st.integers(0, 2**33),
)


@given(st.lists(members, max_size=5), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 700))
@settings(deadline=None)
def test_reads_what_the_standard_library_writes(
    wanted: list[tuple[str, bytes, int, int, int]], form: int, most: int
) -> None:
    """Names of any length and script, any content, mode, owner and time, however the stream trickles in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data, mode, uid, mtime in wanted:
            member = tarfile.TarInfo(f"d/{name}")
            member.size, member.mode, member.uid, member.mtime = len(data), mode, uid, mtime
            archive.addfile(member, io.BytesIO(data))
    found = [
        (entry.name.decode()[2:], content, entry.mode, entry.uid, entry.mtime_ns // 10**9)
        for entry, content in read(buffer.getvalue(), most)
    ]
    assert found == wanted


VALID = tar.stream(
    tar.pax({b"path": b"long/" * 40, b"mtime": b"1.25"}),
    tar.directory(b"d"),
    tar.gnu_long(b"name" * 60),
    tar.file(b"f", b"content" * 100),
    tar.symlink(b"s", b"f"),
)


@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=20), st.integers(0, len(VALID))
)
@settings(deadline=None)
def test_damage_never_raises_anything_else(changes: list[tuple[int, int]], end: int) -> None:
    """Any bytes give entries or an error of the domain, never another exception."""
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(errors.InvalidRequest):
        read(bytes(data[:end]))


@given(st.binary(max_size=600))
def test_header_fields_of_any_bytes(noise: bytes) -> None:
    """A header with a right checksum and any bytes in its fields gives an entry or an error of the domain."""
    block = bytearray((noise * (512 // max(len(noise), 1) + 1))[:512].ljust(512, b"\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with contextlib.suppress(errors.InvalidRequest):
        read(bytes(block) + tar.END)
