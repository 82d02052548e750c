"""What the kernel counts is read as it writes it, and what it does not say is not made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from traforo.worker.hosts import cgroups, usages

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
"""
ETH = "  eth0:     100       1    0    0    0     0          0         0       40       2    0    0    0     0       0          0\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        (DEV, None),
        (DEV + ETH, (100, 40)),
        (DEV + ETH + ETH.replace("eth0", "a:b"), (200, 80)),
        (DEV + "  eth0: 1 2\n", None),
        (DEV + "  eth0 1 2 3 4 5 6 7 8 9 10\n", None),
        ("", None),
    ],
)
def test_loopback_is_no_network(text: str, expected: tuple[int, int] | None) -> None:
    """Other interfaces are added up; where there is none there is no number."""
    assert usages.network_bytes(text) == expected


@pytest.mark.parametrize(
    "text, expected", [("usage_usec 1500000\nuser_usec 1\n", 1.5), ("user_usec 1\n", None), ("", None)]
)
def test_time_is_in_seconds(text: str, expected: float | None) -> None:
    """Of cpu.stat, where it says."""
    assert usages.cpu_seconds(text) == expected


def _group(directory: Path, **files: str) -> str:
    group = directory / "sbx"
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)
    return str(directory)


def test_one_tree_of_the_second_kind(tmp_path: Path) -> None:
    """Everything is in one place."""
    path = _group(
        tmp_path, cpu__stat="usage_usec 2000000\n", memory__current="10\n", memory__peak="20\n", pids__current="3\n"
    )
    hierarchy = cgroups.Hierarchy(2, path, frozenset({"cpu", "memory", "pids"}))
    assert usages.read_groups([hierarchy], "sbx") == usages.Groups(2.0, 10, 20, 3)


def test_trees_of_the_first_kind_beside_a_bare_second(tmp_path: Path) -> None:
    """Time comes from the bare tree, the rest from where the controllers are."""
    hierarchies = [
        cgroups.Hierarchy(2, _group(tmp_path / "two", cpu__stat="usage_usec 1000000\n"), frozenset()),
        cgroups.Hierarchy(1, _group(tmp_path / "cpu", cpuacct__usage="7000000000\n"), frozenset({"cpu"})),
        cgroups.Hierarchy(
            1,
            _group(tmp_path / "memory", memory__usage_in_bytes="10\n", memory__max_usage_in_bytes="20\n"),
            frozenset({"memory"}),
        ),
        cgroups.Hierarchy(1, _group(tmp_path / "pids", pids__current="3\n"), frozenset({"pids"})),
    ]
    assert usages.read_groups(hierarchies, "sbx") == usages.Groups(1.0, 10, 20, 3)
    assert usages.read_groups(hierarchies[1:], "sbx") == usages.Groups(7.0, 10, 20, 3)


def test_what_nobody_counts_is_not_known(tmp_path: Path) -> None:
    """No tree at all, a kernel without a peak, and a sandbox that is gone."""
    assert usages.read_groups([], "sbx") == usages.Groups()
    path = _group(tmp_path, cpu__stat="", memory__current="10\n", pids__current="max\n")
    hierarchy = cgroups.Hierarchy(2, path, frozenset({"memory", "pids"}))
    assert usages.read_groups([hierarchy], "sbx") == usages.Groups(None, 10, None, None)
    assert usages.read_groups([hierarchy], "gone") == usages.Groups()


def test_a_disk_has_a_size(tmp_path: Path) -> None:
    """And no more of it is used than there is."""
    used, size = usages.disk_bytes(str(tmp_path))
    assert 0 <= used <= size
