"""Streams: compression undone within limits, hashes of all that passes."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.images import readers
from traforo.worker.images.budgets import Budget
from traforo.worker.images.limits import Limits


def budget(limits: Limits | None = None, *, free: int = 2**40) -> Budget:
    return Budget(limits or Limits(), stop=threading.Event(), free_bytes=lambda: free)


def unpack(data: bytes, spent: Budget | None = None, size: int = 1000) -> bytes:
    stream = readers.unpacked(io.BytesIO(data), spent or budget())
    parts = []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    return b"".join(parts)


@given(
    st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 4000), st.binary(max_size=0) | st.just(bytes(512))
)
@settings(deadline=None)
def test_undoes_gzip_of_any_number_of_members(parts: list[bytes], size: int, filling: bytes) -> None:
    """Parallel compressors write several members, tapes fill up with zeros; all of it is one stream."""
    packed = b"".join(gzip.compress(part) for part in parts)
    if packed:
        assert unpack(packed + filling, size=size) == b"".join(parts)


@given(st.binary(max_size=3000))
def test_passes_on_what_is_not_packed(data: bytes) -> None:
    """Layers without compression are layers too."""
    if not data.startswith((b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18")):
        assert unpack(data) == data


@pytest.mark.parametrize(
    "data, name",
    [
        (b"\x28\xb5\x2f\xfd" + b"x" * 50, "zstd"),
        (bz2.compress(b"x"), "bzip2"),
        (lzma.compress(b"x"), "xz"),
        (b"\x04\x22\x4d\x18" + b"x" * 50, "lz4"),
    ],
)
def test_other_compressions_are_named_and_refused(data: bytes, name: str) -> None:
    """The caller learns which one it was and what to do."""
    with pytest.raises(errors.InvalidRequest, match=f"{name} compression is not supported") as caught:
        unpack(data)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "damage, why",
    [
        (lambda data: data[:-9], "ends too early"),
        (lambda data: data[:12], "ends too early"),
        (lambda data: data[:2], "ends too early"),
        (lambda data: data[:30] + b"\xff" * 20 + data[50:], "damaged"),
        (lambda data: data[:-8] + bytes(8), "damaged"),
        (lambda data: data + b"garbage", "damaged"),
        (lambda data: b"\x1f\x8b\x00" + data[3:], "damaged"),
    ],
)
def test_damaged_gzip_is_refused(damage: object, why: str) -> None:
    """Cut off, changed or followed by something else: never silently short."""
    assert callable(damage)
    with pytest.raises(errors.InvalidRequest, match=why):
        unpack(damage(gzip.compress(os.urandom(5000))))


def test_a_bomb_is_stopped_by_its_growth() -> None:
    """Long before the total limit: a stream that grows like no layer does ends the preparation."""
    limits = Limits(ratio=100, ratio_free_bytes=10_000)
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 20_000
    spent = budget(limits)
    with pytest.raises(errors.TooLarge, match="100 times"):
        unpack(bomb, spent)
    assert spent.unpacked < 2_000_000


def test_a_bomb_within_a_bomb_counts_member_by_member() -> None:
    """Many small members are one stream to the limit."""
    limits = Limits(ratio=100, ratio_free_bytes=10_000)
    with pytest.raises(errors.TooLarge):
        unpack(gzip.compress(bytes(50_000)) * 100, budget(limits))


def test_little_that_packs_well_is_no_bomb() -> None:
    """A file of zeros below the free amount is fine whatever its ratio."""
    assert unpack(gzip.compress(bytes(10_000)), budget(Limits(ratio=2, ratio_free_bytes=10_000))) == bytes(10_000)


def test_bytes_of_all_streams_count_together() -> None:
    """Ten layers of a tenth each are the whole limit."""
    spent = budget(Limits(unpacked_bytes=2500))
    assert unpack(b"x" * 1000, spent) + unpack(gzip.compress(b"y" * 1000), spent) == b"x" * 1000 + b"y" * 1000
    with pytest.raises(errors.TooLarge) as caught:
        unpack(b"z" * 1000, spent)
    assert caught.value.fields["limit"] == 2500
    assert spent.renewed().unpacked == 0


def test_a_full_disk_is_no_capacity() -> None:
    """The disk holds other sandboxes too."""
    with pytest.raises(errors.NoCapacity, match="nearly full"):
        unpack(b"x", budget(Limits(free_bytes=100), free=99))


def test_stopping_ends_a_preparation() -> None:
    """A worker that stops does not wait for an image."""
    stop = threading.Event()
    spent = Budget(Limits(), stop=stop, free_bytes=lambda: 2**40)
    stream = readers.unpacked(io.BytesIO(b"x" * 100), spent)
    assert stream.read(10)
    stop.set()
    with pytest.raises(errors.WorkerUnavailable):
        stream.read(10)


def test_hashes_what_passes() -> None:
    """Of both forms, whatever pieces were read."""
    packed = gzip.compress(b"content" * 100)
    below = readers.Hashed(io.BytesIO(packed))
    above = readers.Hashed(readers.unpacked(below, budget()), "sha512")
    readers.drain(readers.Buffered(above))
    assert below.hexdigest() == hashlib.sha256(packed).hexdigest()
    assert above.hexdigest() == hashlib.sha512(b"content" * 100).hexdigest()
    assert (below.size, above.size) == (len(packed), 700)


def test_a_region_stays_in_its_bounds(tmp_path: Path) -> None:
    """And says so when the file is shorter than it was."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        region = readers.Region(file.fileno(), 2, 5)
        region.skip(1)
        assert readers.whole(region, 4) == b"3456"
        assert region.read(1) == b""
        with pytest.raises(errors.InvalidRequest, match="ends too early"):
            region.skip(1)
        with pytest.raises(errors.InvalidRequest, match="ends too early"):
            readers.drain(readers.Region(file.fileno(), 5, 6))


def test_documents_have_a_limit() -> None:
    """Exactly the limit is fine."""
    assert readers.whole(io.BytesIO(b"x" * 10), 10) == b"x" * 10
    with pytest.raises(errors.TooLarge):
        readers.whole(io.BytesIO(b"x" * 11), 10)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 199), st.integers(0, 255))
def test_damage_never_raises_anything_else(data: bytes, at: int, value: int) -> None:
    """Any damage to a gzip stream is an error of the domain or has no effect."""
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[at % len(packed)] = value
    with contextlib.suppress(errors.InvalidRequest):
        unpack(bytes(packed))
