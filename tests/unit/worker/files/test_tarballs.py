"""The tar format, both ways, and archives nobody vouches for."""

import asyncio
import contextlib
import gzip
import io
import itertools
import tarfile
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tar_streams
from traforo.domain import errors
from traforo.worker.files import inflows, tarballs
from traforo.worker.files.tarballs import Kind, Member


async def pieces(data: bytes, cuts: Sequence[int] = ()) -> AsyncIterator[bytes]:
    """Give data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(places):
        if end > begin:
            yield data[begin:end]


def read(data: bytes, cuts: Sequence[int] = (), limit: int = 1000) -> list[tuple[Member, bytes]]:
    """Return everything in an archive."""

    async def reading() -> list[tuple[Member, bytes]]:
        reader = inflows.Reader(inflows.Inflow(pieces(data, cuts)), limit=limit)
        found = []
        while (member := await reader.next()) is not None:
            content = b""
            while part := await reader.read(1000):
                content += part
            found.append((member, content))
        return found

    return asyncio.run(reading())


def packed(members: Sequence[tuple[Member, bytes]]) -> bytes:
    """Return an archive."""
    parts = [tarballs.header(member) + data + tarballs.padding(len(data)) for member, data in members]
    return b"".join([*parts, tarballs.END])


name_bytes = st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw and b"/" not in raw)
names = st.lists(name_bytes, min_size=1, max_size=6).map(
    lambda parts: b"/".join(parts).decode(errors="surrogateescape")
)
times = st.one_of(st.integers(-(10**9), 10**10).map(float), st.floats(0, 10**9, width=32))


@st.composite
def members(draw: st.DrawFn) -> tuple[Member, bytes]:
    """Make an entry and its content."""
    kind = draw(st.sampled_from(Kind))
    data = draw(st.binary(max_size=1500)) if kind is Kind.FILE else b""
    link = draw(names) if kind in {Kind.SYMLINK, Kind.HARDLINK} else ""
    ids = st.integers(0, 0xFFFF_FFFE)
    member = Member(draw(names), kind, len(data), draw(st.integers(0, 0o7777)), draw(ids), draw(ids), draw(times), link)
    return member, data


@given(st.lists(members(), max_size=4), st.lists(st.integers(0, 20_000), max_size=5), st.booleans())
def test_round_trip(found: list[tuple[Member, bytes]], cuts: list[int], compressed: bool) -> None:
    """What is written is read, whatever bytes are in names, however it is cut, compressed or not."""
    data = packed(found)
    again = read(gzip.compress(data) if compressed else data, cuts)
    assert [content for _, content in again] == [content for _, content in found]
    for (member, _), (got, _) in zip(found, again, strict=True):
        assert got.modified_at == pytest.approx(member.modified_at, abs=1e-6)
        assert (got.name.rstrip("/"), got.kind, got.size, got.mode, got.uid, got.gid, got.link) == (
            member.name.rstrip("/"), member.kind, member.size, member.mode, member.uid, member.gid, member.link,
        )  # fmt: skip


@given(st.lists(members(), max_size=4))
def test_others_read_it(found: list[tuple[Member, bytes]]) -> None:
    """Another reader finds the same in it."""
    with tarfile.open(fileobj=io.BytesIO(packed(found)), errors="surrogateescape", encoding="utf-8") as archive:
        got = [(entry.name, entry.linkname, entry.mode, entry.uid, entry.gid) for entry in archive]
    assert got == [(m.name.rstrip("/"), m.link, m.mode, m.uid, m.gid) for m, _ in found]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_others_write(form: int, mode: str) -> None:
    """Archives of every usual format are read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:  # type: ignore[call-overload] # as above
        for name in ("d", "d/f", "d/" + "long" * 20 + "/" + "name" * 20):
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = 5, 0o640
            if name == "d":
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = 700
                archive.addfile(entry, io.BytesIO(b"x" * 700))
    found = read(buffer.getvalue(), range(0, 40_000, 777))
    assert [(m.name, m.kind, len(data), m.mode, m.modified_at) for m, data in found] == [
        ("d", Kind.DIRECTORY, 0, 0o640, 5.0),
        ("d/f", Kind.FILE, 700, 0o640, 5.0),
        ("d/" + "long" * 20 + "/" + "name" * 20, Kind.FILE, 700, 0o640, 5.0),
    ]


def test_old_gnu_times_are_no_prefix() -> None:
    """Where GNU tar keeps more times, ustar has the beginning of the name."""
    data = tar_streams.header(b"f", magic=b"ustar  \0", prefix=b"14000000000") + tarballs.END
    assert [member.name for member, _ in read(data)] == ["f"]


def test_several_members_of_gzip() -> None:
    """Compressed data in several parts is one archive, wherever they are cut; what is no such part is left alone."""
    data = packed([(Member("f", Kind.FILE, 3), b"abc")])
    parts = [gzip.compress(data[:100]), gzip.compress(data[100:600]), gzip.compress(data[600:])]
    whole = b"".join(parts)
    for cut in range(len(whole)):
        assert [content for _, content in read(whole, [cut])] == [b"abc"]
    assert [content for _, content in read(whole + b"\0" * 100)] == [b"abc"]


def records(**values: str) -> bytes:
    """Return pax records."""
    found = b""
    for key, value in values.items():
        line = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(line) + 2
        length = len(line) + len(str(length))
        found += str(length).encode() + line
    return found


def extended(content: bytes, kind: bytes = b"x") -> bytes:
    return tar_streams.header(b"e", kind, size=len(content)) + tar_streams.padded(content)


FILE = tar_streams.file(b"f", b"abc")


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 512,
        b"short",
        FILE[:600],
        FILE[:100],
        tar_streams.header(b"f", checksum=1) + tarballs.END,
        extended(b"9 path=x"),
        extended(b"99 path=x\n") + FILE,
        extended(b"0 x=y\n") + FILE,
        extended(b"8 pathxx\n") + FILE,
        extended(records(path="x")),
        extended(records(size="99999999999999999999")) + FILE,
        extended(records(size="-1")) + FILE,
        extended(records(uid="99999999999")) + FILE,
        extended(records(GNU_sparse_major="1")) + FILE,
        extended(b"x" * (tarballs.MAX_EXTENSION_BYTES + 1)) + FILE,
        (extended(records(path="x")) * (tarballs.MAX_EXTENSIONS + 1)) + FILE,
        tar_streams.header(b"c", b"3") + tarballs.END,
        tar_streams.header(b"p", b"6") + tarballs.END,
        tar_streams.header(b"s", b"S") + tarballs.END,
        tar_streams.header(b"?", b"Q") + tarballs.END,
        gzip.compress(FILE, mtime=0)[:-10],
        gzip.compress(FILE, mtime=0)[:20] + b"damaged" + gzip.compress(FILE, mtime=0)[27:],
        FILE + tarballs.END + bytes(inflows.MAX_PADDING_BYTES + 1),
    ],
)
def test_broken_archives(data: bytes) -> None:
    """What is no archive, or holds what is not taken, is refused in words."""
    with pytest.raises(errors.InvalidRequest):
        read(data)


def test_entries_are_limited() -> None:
    """A number of headers ends it, entries without content and defaults included."""
    with pytest.raises(errors.TooLarge):
        read(tar_streams.file(b"f") * 11 + tarballs.END, limit=10)
    with pytest.raises(errors.TooLarge):
        read((extended(b"", b"g") + tar_streams.file(b"f")) * 6 + tarballs.END, limit=10)


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes(data: bytes, compressed: bool) -> None:
    """Any body is an archive, or refused."""
    with contextlib.suppress(errors.InvalidRequest, errors.TooLarge):
        read(gzip.compress(data) if compressed else data)


@given(
    st.binary(min_size=512, max_size=512),
    st.dictionaries(st.sampled_from(["path", "size", "mtime", "uid", "linkpath"]), st.text()),
)
def test_any_header(block: bytes, said: dict[str, str]) -> None:
    """Any block is a header, or refused, with the right checksum too."""
    block = block[:148] + b" " * 8 + block[156:]
    block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    with contextlib.suppress(errors.InvalidRequest):
        found = tarballs.parse(block, said)
        assert found.size >= 0


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/..", "..", "a\0b"])
def test_names_that_lead_out(name: str) -> None:
    """An entry is below the directory by its name alone."""
    with pytest.raises(errors.InvalidRequest):
        tarballs.safe(name)


def test_names() -> None:
    """What stays below is brought into one form; what is too long or too deep is told apart."""
    assert [tarballs.safe(name) for name in ("./a//b/", ".", "", "a/./b", "...")] == ["a/b", "", "", "a/b", "..."]
    for name in ("x" * 256, "a/" * 200):
        with pytest.raises(errors.TooLarge):
            tarballs.safe(name)


@pytest.mark.parametrize("name, target", [("l", "/etc"), ("l", ".."), ("a/l", "../.."), ("l", "a/../b"), ("l", "")])
def test_links_that_lead_out(name: str, target: str) -> None:
    """A link leads nowhere above, nor up again from what may be a link."""
    with pytest.raises(errors.InvalidRequest):
        tarballs.check_link(name, target)


@pytest.mark.parametrize("name, target", [("l", "x"), ("a/l", "../x"), ("a/b/l", "../../x/y"), ("l", "./x")])
def test_links_that_stay(name: str, target: str) -> None:
    """A link within the directory is taken."""
    tarballs.check_link(name, target)
