"""The store: one preparation for many callers, a dictionary for the rest, nothing lost and nothing stale."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests import tar_streams as tar
from tests.fakes.clocks import FakeClock
from tools import make_test_image as images
from traforo.domain import errors
from traforo.worker.images import flattenings, hosts
from traforo.worker.images.limits import Limits
from traforo.worker.images.stores import ImageFacts, ImageStore
from traforo.worker.runtimes.contract import Rootfs


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def host_root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/sh").write_text("#!")
    (root / "usr/bin/sh").chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc").mkdir()
    (root / "etc/services").write_text("http")
    return root


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock, host_root: Path) -> AsyncIterator[ImageStore]:
    made = ImageStore(tmp_path / "state", None, clock=clock, host_root=host_root)
    yield made
    await made.close()


def write_archive(path: Path, content: bytes) -> str:
    """Write a `docker save` archive with one file; return its reference."""
    layers = [tar.stream(tar.file(b"file", content))]
    images.write_archive(path, images.docker_files(layers, images.config_of(layers), name="app:1"))
    return f"docker-archive:{path}"


def root_of(rootfs: Rootfs) -> Path:
    return Path(rootfs.lowers[0].source)


def directory_exists(path: str) -> bool:
    return Path(path).is_dir()


def counting(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, before: Callable[[], None] | None = None
) -> list[str]:
    """Count the calls of a function, and do something before each."""
    real = getattr(module, name)
    calls: list[str] = []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(name)
        if before is not None:
            before()
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


async def test_resolves_each_kind(store: ImageStore, tmp_path: Path) -> None:
    """Every reference becomes directories that are there."""
    layers = [tar.stream(tar.file(b"bin/sh", b"#!", mode=0o755))]
    files = images.oci_files(layers, images.config_of(layers))
    images.write_directory(tmp_path / "layout", files)
    images.write_archive(tmp_path / "oci.tar", files)
    (tmp_path / "dir/bin").mkdir(parents=True)
    (tmp_path / "dir/bin/sh").symlink_to("busybox")
    docker = write_archive(tmp_path / "docker.tar", b"x")
    wanted = ["host", f"dir:{tmp_path}/dir", f"oci-layout:{tmp_path}/layout", f"oci-archive:{tmp_path}/oci.tar", docker]
    found = [await store.resolve(reference) for reference in wanted]
    assert [rootfs.image for rootfs in found] == wanted
    assert [lower.source for rootfs in found for lower in rootfs.lowers if not directory_exists(lower.source)] == []
    assert found[2].lowers == found[3].lowers
    assert sorted(await store.inventory(), key=lambda facts: facts.kind) == [
        ImageFacts(f"dir:{tmp_path}/dir", "dir", 0),
        ImageFacts(docker, "docker-archive", 1),
        ImageFacts("host", "host", (await store.inventory())[-2].bytes),
        ImageFacts(f"oci-layout:{tmp_path}/layout", "oci-layout", 2),
    ]


async def test_many_callers_share_one_preparation(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same reference, and of different references to the same content."""
    calls = counting(monkeypatch, flattenings, "flatten")
    first = write_archive(tmp_path / "a.tar", b"same")
    second = write_archive(tmp_path / "b.tar", b"same")
    found = await asyncio.gather(*(store.resolve(reference) for reference in [first, second] * 20))
    assert calls == ["flatten"]
    assert {root_of(rootfs) for rootfs in found} == {root_of(found[0])}
    assert [rootfs.image for rootfs in found[:2]] == [first, second]


async def test_a_caller_that_goes_away_does_not_end_it_for_others(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when it was the first and the only one: the work is done for whoever asks next."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(20)

    calls = counting(monkeypatch, flattenings, "flatten", wait)
    reference = write_archive(tmp_path / "a.tar", b"x")
    first = asyncio.create_task(store.resolve(reference))
    await asyncio.to_thread(begun.wait, 20)
    second = asyncio.create_task(store.resolve(reference))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go_on.set()
    assert (root_of(await second) / "file").read_bytes() == b"x"
    assert first.cancelled()
    assert calls == ["flatten"]


async def test_what_is_known_costs_no_thread(store: ImageStore, tmp_path: Path, clock: FakeClock) -> None:
    """Within a second the same object comes back, without a task and without a look at the disk."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    first = await store.resolve(reference)
    (tmp_path / "a.tar").unlink()
    clock.move(0.9)
    quick = store.resolve(reference)
    with pytest.raises(StopIteration) as returned:
        quick.send(None)
    assert returned.value.value is first


async def test_a_source_that_is_the_same_is_not_prepared_again(
    store: ImageStore, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the second it is looked at, and the same object stays."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    first = await store.resolve(reference)
    reads = counting(monkeypatch, flattenings, "read")
    clock.move(5)
    assert await store.resolve(reference) is first
    assert reads == []


async def test_a_source_that_changed_is_prepared_anew(store: ImageStore, tmp_path: Path, clock: FakeClock) -> None:
    """The old tree stays for the sandboxes that have it mounted."""
    reference = write_archive(tmp_path / "a.tar", b"one")
    old = root_of(await store.resolve(reference))
    write_archive(tmp_path / "a.tar", b"two")
    clock.move(2)
    new = root_of(await store.resolve(reference))
    assert ((old / "file").read_text(), (new / "file").read_text()) == ("one", "two")


async def test_a_source_that_is_gone_is_not_found(store: ImageStore, tmp_path: Path, clock: FakeClock) -> None:
    """And found again when it is back, without preparing it again."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    first = root_of(await store.resolve(reference))
    (tmp_path / "a.tar").rename(tmp_path / "away.tar")
    clock.move(2)
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            await store.resolve(reference)
    (tmp_path / "away.tar").rename(tmp_path / "a.tar")
    assert root_of(await store.resolve(reference)) == first


async def test_a_prepared_image_that_somebody_removed_is_made_again(
    store: ImageStore, tmp_path: Path, clock: FakeClock
) -> None:
    """An operator may empty the directory of images."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    root = root_of(await store.resolve(reference))
    root.parent.rename(tmp_path / "removed")
    clock.move(2)
    assert (root_of(await store.resolve(reference)) / "file").read_text() == "x"


async def test_what_was_prepared_outlives_the_worker(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one finds it by content and unpacks nothing; what was left half-made is gone."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    first = await store.resolve(reference)
    half = tmp_path / "state/images/.making-old/rootfs"
    half.mkdir(parents=True)
    calls = counting(monkeypatch, flattenings, "flatten")
    later = ImageStore(tmp_path / "state", None)
    await later.start()
    assert not half.exists()
    assert [facts.reference for facts in await later.inventory()] == [reference]
    assert await later.resolve(reference) == first
    assert calls == []
    await later.close()


async def test_errors_reach_everyone_who_asked(store: ImageStore, tmp_path: Path) -> None:
    """And leave nothing behind."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar" * 200)
    found = await asyncio.gather(
        *[store.resolve(f"docker-archive:{path}")] * 1,
        *(store.resolve(f"docker-archive:{path}") for _ in range(5)),
        return_exceptions=True,
    )
    assert [type(error) for error in found] == [errors.InvalidRequest] * 6
    assert list((tmp_path / "state/images").iterdir()) == []
    assert await store.inventory() == []


@pytest.mark.parametrize(
    "reference, kind",
    [("debian:12", errors.NotFound), ("dir:relative", errors.InvalidRequest), ("dir:/missing/x", errors.NotFound)],
)
async def test_bad_references(reference: str, kind: type[errors.TraforoError], store: ImageStore) -> None:
    """Are refused as the API promises."""
    with pytest.raises(kind):
        await store.resolve(reference)


async def test_limits_are_those_that_were_given(tmp_path: Path) -> None:
    """The worker's settings decide."""
    reference = write_archive(tmp_path / "a.tar", b"x" * 5000)
    store = ImageStore(tmp_path / "state", [tmp_path], limits=Limits(unpacked_bytes=4000))
    with pytest.raises(errors.TooLarge):
        await store.resolve(reference)
    await store.close()
    strict = ImageStore(tmp_path / "state", [])
    with pytest.raises(errors.NotFound):
        await strict.resolve(reference)
    await strict.close()


async def test_a_full_disk_is_no_capacity(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be placed on another host; and what is no fault of the caller's is told without details."""
    reference = write_archive(tmp_path / "a.tar", b"x")
    for number, kind in ((28, errors.NoCapacity), (122, errors.NoCapacity), (5, errors.Internal)):

        def fail(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(flattenings, "flatten", fail)
        with pytest.raises(kind):
            await store.resolve(reference)


class TestHost:
    async def test_is_looked_at_in_the_background(self, store: ImageStore, host_root: Path, clock: FakeClock) -> None:
        """An old image of it is good, so nobody waits for the new one."""
        first = await store.resolve("host")
        (host_root / "etc/services").write_text("changed")
        clock.move(61)
        assert await store.resolve("host") is first
        await asyncio.gather(*store._resolving.values())
        new = await store.resolve("host")
        assert (root_of(new) / "etc/services").read_text() == "changed"
        assert (root_of(first) / "etc/services").read_text() == "http"

    async def test_a_host_that_becomes_unusable_keeps_what_it_had(
        self, store: ImageStore, host_root: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a package is replaced /bin/sh may be missing for a moment."""
        first = await store.resolve("host")
        (host_root / "usr/bin/sh").unlink()
        clock.move(61)
        assert await store.resolve("host") is first
        await asyncio.gather(*store._resolving.values())
        looks = counting(monkeypatch, hosts, "find")
        assert await store.resolve("host") is first
        assert (looks, store._resolving) == ([], {})

    async def test_an_unusable_host_is_not_found(self, store: ImageStore, host_root: Path) -> None:
        (host_root / "usr/bin/sh").unlink()
        with pytest.raises(errors.NotFound):
            await store.resolve("host")


class TestCollect:
    async def test_removes_what_was_superseded_and_is_not_in_use(
        self, store: ImageStore, tmp_path: Path, clock: FakeClock
    ) -> None:
        """Ten minutes after it was handed out last, and never while a sandbox has it mounted."""
        reference = write_archive(tmp_path / "a.tar", b"one")
        other = await store.resolve(write_archive(tmp_path / "b.tar", b"other"))
        old = root_of(await store.resolve(reference))
        write_archive(tmp_path / "a.tar", b"two")
        clock.move(2)
        new = root_of(await store.resolve(reference))
        assert await store.collect([]) == []
        clock.move(601)
        assert await store.collect([str(old)]) == []
        assert await store.collect(["/usr", str(new)]) == [old.parent.name]
        assert [path.exists() for path in (old, new, root_of(other))] == [False, True, True]
        assert await store.collect([]) == []

    async def test_keeps_what_an_earlier_worker_prepared(self, store: ImageStore, tmp_path: Path) -> None:
        """It is what makes the next sandbox quick; nothing says that it is old."""
        await store.resolve(write_archive(tmp_path / "a.tar", b"one"))
        later = ImageStore(tmp_path / "state", None)
        assert await later.collect([]) == []
        assert len(await later.inventory()) == 1
        await later.close()


class TestClosing:
    async def test_ends_a_preparation(self, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which leaves nothing, and later calls are told why."""
        begun = threading.Event()

        def wait() -> None:
            begun.set()
            assert store._workshop.stop.wait(20)

        counting(monkeypatch, flattenings, "flatten", wait)
        reference = write_archive(tmp_path / "a.tar", b"x")
        task = asyncio.create_task(store.resolve(reference))
        await asyncio.to_thread(begun.wait, 20)
        await store.close()
        with pytest.raises(errors.WorkerUnavailable):
            await task
        assert list((tmp_path / "state/images").iterdir()) == []
        with pytest.raises(errors.WorkerUnavailable):
            await store.resolve(reference)

    async def test_twice_is_fine(self, store: ImageStore) -> None:
        await store.close()
        await store.close()


async def test_memory_of_references_is_bounded(
    store: ImageStore, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one not used for longest goes; it is found again."""
    monkeypatch.setattr("traforo.worker.images.stores._MAX_KNOWN", 2)
    made = []
    for name in ("a", "b", "c"):
        clock.move(0.1)
        made.append(write_archive(tmp_path / f"{name}.tar", name.encode()))
        await store.resolve(made[-1])
        await store.resolve(made[0])
    assert sorted(store._known) == [made[0], made[2]]
    assert (root_of(await store.resolve(made[1])) / "file").read_text() == "b"


async def test_the_state_directory_is_made(store: ImageStore, tmp_path: Path) -> None:
    """When it is needed first, closed to everybody else."""
    assert not (tmp_path / "state").exists()
    await store.start()
    assert stat.S_IMODE((tmp_path / "state/images").stat().st_mode) == 0o700
