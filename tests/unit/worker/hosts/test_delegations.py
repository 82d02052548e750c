"""Delegated control groups: found from what /proc says, and controllers passed on as far as the kernel lets us."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from traforo.worker.hosts import cgroups, delegations

TREE = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    "root, membership, expected",
    [
        ("/", "0::/\n", TREE),
        ("/", "9:name=systemd:/x\n0::/user.slice/a.scope\n", f"{TREE}/user.slice/a.scope"),
        ("/", "0::/a.scope/traforo-0123-worker\n", f"{TREE}/a.scope"),
        ("/", "0::/a.scope/traforo-0123\n", f"{TREE}/a.scope/traforo-0123"),
        ("/pod", "0::/pod/box\n", f"{TREE}/box"),
        ("/pod", "0::/pod\n", TREE),
        ("/pod", "0::/podium\n", None),
        ("/", "0::/../../elsewhere\n", None),
        ("/..", "0::/\n", None),
        ("/", "4:memory:/x\n", None),
        ("/", "", None),
    ],
)
def test_the_own_group_is_found_where_it_can_be_seen(root: str, membership: str, expected: str | None) -> None:
    """Below where the tree is mounted, without the leaf that an earlier worker moved us into; never outside."""
    assert delegations.own(TREE, root, membership) == (None if expected is None else Path(expected))


def test_the_root_is_tried_before_the_own_group_and_the_one_above() -> None:
    """Each once, and nothing above the root."""
    assert delegations.places(TREE, "/", "0::/a/b\n") == [Path(TREE), Path(TREE, "a/b"), Path(TREE, "a")]
    assert delegations.places(TREE, "/", "0::/a\n") == [Path(TREE), Path(TREE, "a")]
    assert delegations.places(TREE, "/", "0::/\n") == [Path(TREE)]
    assert delegations.places(TREE, "/", "") == [Path(TREE)]


class Kernel:
    """Directories that stand for a v2 tree: controllers can be passed on only from where nothing runs."""

    def __init__(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tree = tree
        self.broken: set[str] = set()
        monkeypatch.setattr(delegations, "_enable", self.enable)
        monkeypatch.setattr(delegations, "_move", self.move)

    def group(self, name: str, controllers: str, *pids: int) -> Path:
        path = self.tree / name
        path.mkdir(parents=True, exist_ok=True)
        if name:
            (path / "cgroup.type").write_text("domain\n")
        (path / "cgroup.controllers").write_text(controllers + "\n")
        (path / "cgroup.subtree_control").write_text("\n")
        (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return path

    def enable(self, place: Path, controller: str) -> None:
        if not (place / "cgroup.procs").exists():  # made just now
            self.group(str(place.relative_to(self.tree)), (place.parent / "cgroup.subtree_control").read_text())
        if controller in self.broken:
            raise OSError(errno.EINVAL, "broken")
        assert not (place / "cgroup.procs").read_text() or place == self.tree, "it would become one for threads"
        with (place / "cgroup.subtree_control").open("a") as file:
            file.write(f"{controller} ")

    def move(self, group: Path, pid: str) -> None:
        source = group.parent / "cgroup.procs"
        source.write_text("".join(f"{other}\n" for other in source.read_text().split() if other != pid))
        with (group / "cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def test_processes_in_the_way_move_into_a_leaf(kernel: Kernel) -> None:
    """Ours and its neighbours: the group is ours, so are they."""
    place = kernel.group("a", "cpu memory pids", os.getpid(), 4)
    assert delegations.pass_on(place, {"cpu", "memory"}, "leaf") == {"cpu", "memory"}
    assert (place / "leaf/cgroup.procs").read_text().split() == [str(os.getpid()), "4"]


def test_processes_of_a_group_that_is_not_our_own_stay(kernel: Kernel) -> None:
    """Then nothing is passed on, and nothing is touched."""
    place = kernel.group("a", "cpu memory pids", 4)
    assert delegations.pass_on(place, {"cpu", "memory"}, "leaf") == frozenset()
    assert (place / "cgroup.procs").read_text() == "4\n"
    assert not (place / "leaf").exists()


def test_the_root_of_all_holds_processes_and_passes_on(kernel: Kernel) -> None:
    """Nobody moves there, whether we are among them or not."""
    place = kernel.group("", "cpu memory pids", os.getpid(), 1)
    assert delegations.pass_on(place, {"cpu", "memory"}, "leaf") == {"cpu", "memory"}
    assert not (place / "leaf").exists()


def test_what_is_passed_on_already_moves_nobody(kernel: Kernel) -> None:
    """A later worker finds the work of the first one."""
    place = kernel.group("a", "cpu memory pids", os.getpid())
    (place / "cgroup.subtree_control").write_text("cpu memory\n")
    assert delegations.pass_on(place, {"cpu", "memory"}, "leaf") == {"cpu", "memory"}
    assert not (place / "leaf").exists()


def test_a_controller_that_fails_costs_no_other(kernel: Kernel) -> None:
    """As cpu does while a real-time process runs somewhere."""
    kernel.broken = {"cpu"}
    place = kernel.group("a", "cpu memory pids")
    assert delegations.pass_on(place, cgroups.CONTROLLERS, "leaf") == {"memory", "pids"}


def test_what_is_offered_is_what_is_wanted_and_there(kernel: Kernel) -> None:
    """A group that cannot be read offers nothing."""
    place = kernel.group("a", "cpuset cpu io memory")
    assert delegations.offered(place, cgroups.CONTROLLERS) == {"cpu", "memory"}
    assert delegations.offered(kernel.tree / "none", cgroups.CONTROLLERS) == frozenset()


def _mountinfo(tree: Path) -> str:
    return f"32 31 0:27 / {tree} rw,nosuid - cgroup2 cgroup2 rw\n"


def test_the_own_group_is_used_where_the_root_gives_nothing(kernel: Kernel) -> None:
    """The group made in vain is removed again."""
    kernel.group("", "")
    kernel.group("user/own", "cpu memory pids", os.getpid())
    layout = cgroups.prepare("traforo-x", _mountinfo(kernel.tree), "0::/user/own\n")
    assert [Path(found.path) for found in layout.hierarchies] == [kernel.tree / "user/own/traforo-x"]
    assert not (kernel.tree / "traforo-x").exists()
    assert (kernel.tree / "user/own/traforo-x-worker").is_dir()


def test_the_root_is_used_where_it_gives_everything(kernel: Kernel) -> None:
    """The own group is left alone then."""
    kernel.group("", "cpu memory pids")
    own = kernel.group("user/own", "cpu memory pids", os.getpid())
    layout = cgroups.prepare("traforo-x", _mountinfo(kernel.tree), "0::/user/own\n")
    assert [Path(found.path) for found in layout.hierarchies] == [kernel.tree / "traforo-x"]
    assert not list(own.glob("traforo-*"))
