"""Public ports: what was acknowledged survives, and what cannot be read makes nothing public."""

from __future__ import annotations

from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.worker.ports import publications


def made(path: Path, dead: frozenset[str] = frozenset()) -> publications.Publications:
    return publications.Publications(path / "ports.json", lambda name: name not in dead)


async def test_publish_and_withdraw(tmp_path: Path) -> None:
    """Ports are private until told otherwise; each call tells whether it changed anything; a restart changes nothing."""
    first = made(tmp_path)
    await first.load()
    assert not first.public("a", 1)
    assert await first.set("a", 1, public=True)
    assert not await first.set("a", 1, public=True)
    assert await first.set("a", 2, public=True)
    second = made(tmp_path)
    await second.load()
    assert [second.public("a", port) for port in (1, 2, 3)] == [True, True, False]
    assert not second.public("b", 1)
    assert await second.set("a", 1, public=False)
    assert not await second.set("a", 1, public=False)
    third = made(tmp_path)
    await third.load()
    assert [third.public("a", port) for port in (1, 2)] == [False, True]


async def test_the_dead_are_forgotten(tmp_path: Path) -> None:
    """Each change drops what can no longer be reached."""
    first = made(tmp_path)
    await first.set("a", 1, public=True)
    second = made(tmp_path, frozenset({"a"}))
    await second.load()
    await second.set("b", 1, public=True)
    assert b'"a"' not in (tmp_path / "ports.json").read_bytes()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": ["x"]}', b"\xff", b'{"a": [1]'])
async def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    """Then every port is private."""
    (tmp_path / "ports.json").write_bytes(content)
    found = made(tmp_path)
    await found.load()
    assert not found.public("a", 1)
    assert await found.set("a", 1, public=True)


async def test_limits_and_full_disks(tmp_path: Path) -> None:
    """A sandbox has so many public ports; one that cannot be written was not made public."""
    found = made(tmp_path)
    for port in range(1, publications.MAX_PORTS + 1):
        await found.set("a", port, public=True)
    with pytest.raises(errors.TooLarge):
        await found.set("a", 9999, public=True)
    lost = made(tmp_path / "missing")
    with pytest.raises(errors.Internal):
        await lost.set("a", 1, public=True)
    assert not lost.public("a", 1)
