"""Walks of trees: how large, how many."""

from types import SimpleNamespace
from typing import Any

import pytest

from traforo.domain import clocks, errors
from traforo.worker.files import walks
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities


def entry(text_id: str) -> Any:
    """Return as much of a sandbox as a turn looks at."""
    return SimpleNamespace(text_id=text_id, activity=activities.Activity(clocks.SystemClock()))


def test_turns() -> None:
    """A sandbox has some, a worker has more, and each is given back whatever happens."""
    turns = walks.Turns()
    held = []
    one = entry("one")
    for _ in range(walks.PER_SANDBOX):
        held.append(turns.turn(one))
        held[-1].__enter__()
    with pytest.raises(errors.RateLimited), turns.turn(one):
        pass
    assert one.activity.holds == walks.PER_SANDBOX
    for number in range(walks.AT_ONCE - walks.PER_SANDBOX):
        held.append(turns.turn(entry(f"{number}")))
        held[-1].__enter__()
    with pytest.raises(errors.RateLimited), turns.turn(entry("last")):
        pass
    for turn in held:
        turn.__exit__(None, None, None)
    with pytest.raises(ZeroDivisionError), turns.turn(one):
        raise ZeroDivisionError
    assert (one.activity.holds, turns._held) == (0, {})


class Files:
    """Lists what it is told to."""

    def __init__(self, names: list[str]) -> None:
        self._found = [contract.FileStat(name, contract.FileKind.FILE, 0, 0, 0, 0, 0.0) for name in names]

    async def list(self, path: str, *, user: str, recursive: bool, limit: int) -> contract.Listing:
        return contract.Listing(self._found[:limit], truncated=len(self._found) > limit)


@pytest.mark.parametrize("count", [5, 3000])
async def test_order(count: int) -> None:
    """Entries come by the bytes of their paths, however many there are."""
    names = [f"/d/{number * 7919 % count}" for number in range(count)] + ["/d/\udcff", "/d/é"]
    inside: Any = Files(names)
    found = await walks.walk(inside, "/d", user="root")
    assert [one.path.encode(errors="surrogateescape") for one in found] == sorted(
        name.encode(errors="surrogateescape") for name in names
    )


async def test_limit() -> None:
    """A tree with one entry too many is refused."""
    inside: Any = Files([f"/d/{number}" for number in range(4)])
    assert len(await walks.walk(inside, "/d", user="root", limit=4)) == 4
    with pytest.raises(errors.TooLarge) as caught:
        await walks.walk(inside, "/d", user="root", limit=3)
    assert caught.value.fields == {"limit": 3}


@pytest.mark.parametrize("base, path, name", [("/", "/a", "a"), ("/d", "/d/a/b", "a/b"), ("/d/", "/d/a", "a")])
def test_relative(base: str, path: str, name: str) -> None:
    """A name begins behind the directory, with or without a slash at its end."""
    assert walks.relative(base, path) == name
