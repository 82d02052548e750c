"""Watching directories: what happens is told, once a watch is there nothing is missed, and it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors
from traforo.domain.states import EndReason
from traforo.worker.runtimes import contract

Sandbox = contract.RunningSandbox
Kind = contract.ChangeKind


async def _watch(sandbox: Sandbox, path: str = "/data", *, recursive: bool = True) -> contract.Watch:
    return await sandbox.files.watch(path, user="root", recursive=recursive)


async def _until(watch: contract.Watch, stop: Callable[[contract.Change], bool]) -> list[contract.Change]:
    """Read changes up to one that is expected."""
    found: list[contract.Change] = []
    while not found or not any(map(stop, found)):
        more = await watch.changes()
        assert more
        found.extend(more)
    return found


def _last(path: str, kind: Kind = Kind.CREATED) -> Callable[[contract.Change], bool]:
    return lambda change: (change.kind, change.path) == (kind, path)


async def _do(sandbox: Sandbox, script: str) -> None:
    done = await outputs.run(sandbox, script)
    assert (done.exit.code, done.stderr) == (0, b"")


def _pairs(changes: Sequence[contract.Change]) -> set[tuple[Kind, str]]:
    return {(change.kind, change.path) for change in changes}


@pytest.mark.parametrize("recursive", [False, True])
async def test_files_come_change_and_go(sandbox: Sandbox, recursive: bool) -> None:
    """Each by its absolute path and with what it is."""
    watch = await _watch(sandbox, recursive=recursive)
    await _do(sandbox, "echo one > a")
    changes = await _until(watch, _last("/data/a"))
    assert changes[0] == contract.Change(Kind.CREATED, "/data/a")
    await _do(sandbox, "echo two >> a")
    await _until(watch, _last("/data/a", Kind.MODIFIED))
    await _do(sandbox, "chmod 600 a")
    await _until(watch, _last("/data/a", Kind.ATTRIBUTES))
    await _do(sandbox, "mkdir d")
    changes = await _until(watch, _last("/data/d"))
    assert contract.Change(Kind.CREATED, "/data/d", directory=True) in changes
    await _do(sandbox, "rm a; rmdir d")
    changes = await _until(watch, _last("/data/d", Kind.DELETED))
    assert (Kind.DELETED, "/data/a") in _pairs(changes)
    await watch.close()


async def test_a_move_within_is_one_change(sandbox: Sandbox) -> None:
    """With the place where it was; what comes later below it has the new path."""
    await _do(sandbox, "mkdir -p old/deep other; touch old/deep/file")
    watch = await _watch(sandbox)
    await _do(sandbox, "mv old other/new")
    changes = await _until(watch, _last("/data/other/new"))
    assert changes == [contract.Change(Kind.CREATED, "/data/other/new", True, "/data/old")]
    await _do(sandbox, "echo x > other/new/deep/file")
    changes = await _until(watch, _last("/data/other/new/deep/file", Kind.MODIFIED))
    assert all(change.path.startswith("/data/other/new/deep") for change in changes)
    await watch.close()


async def test_a_move_out_is_an_end_and_a_move_in_a_beginning(sandbox: Sandbox) -> None:
    """What is outside is not told of any more; what comes in is, with all that is in it."""
    await _do(sandbox, "mkdir -p ../tmp/in/below here; touch ../tmp/in/below/file")
    watch = await _watch(sandbox)
    await _do(sandbox, "mv here ../tmp/out")
    await _until(watch, _last("/data/here", Kind.DELETED))
    await _do(sandbox, "touch ../tmp/out/unseen; mv ../tmp/in .")
    changes = await _until(watch, _last("/data/in/below/file"))
    assert _pairs(changes) == {
        (Kind.CREATED, "/data/in"),
        (Kind.CREATED, "/data/in/below"),
        (Kind.CREATED, "/data/in/below/file"),
    }
    await watch.close()


async def test_new_directories_are_watched_however_quick_they_are(sandbox: Sandbox) -> None:
    """Whatever is in them when they are found, and whatever comes later."""
    watch = await _watch(sandbox)
    await _do(sandbox, "for i in 1 2 3 4 5 6 7 8 9; do mkdir -p $i/b/c/d; touch $i/b/c/d/file; done")
    expected = {f"/data/{i}/b/c/d/file" for i in range(1, 10)}
    seen: set[str] = set()
    while not expected <= seen:
        seen |= {change.path for change in await watch.changes()}
    await _do(sandbox, "touch 9/b/c/d/later")
    await _until(watch, _last("/data/9/b/c/d/later"))
    await watch.close()


async def test_what_is_below_is_not_told_where_it_is_not_asked_for(sandbox: Sandbox) -> None:
    """Only the entries of the directory itself."""
    await _do(sandbox, "mkdir below")
    watch = await _watch(sandbox, recursive=False)
    await _do(sandbox, "touch below/unseen; touch seen")
    changes = await _until(watch, _last("/data/seen"))
    assert "/data/below/unseen" not in {change.path for change in changes}
    await watch.close()


async def test_links_are_not_followed_below(sandbox: Sandbox) -> None:
    """A link is an entry; what it leads to is somewhere else."""
    await _do(sandbox, "mkdir ../tmp/elsewhere; ln -s ../tmp/elsewhere link")
    watch = await _watch(sandbox)
    await _do(sandbox, "touch ../tmp/elsewhere/unseen; touch seen")
    changes = await _until(watch, _last("/data/seen"))
    assert {change.path for change in changes} == {"/data/seen"}
    await watch.close()


async def test_names_of_any_bytes(sandbox: Sandbox) -> None:
    """They come with surrogate escapes, as everywhere."""
    watch = await _watch(sandbox)
    await _do(sandbox, r'''touch "$(printf 'a\377\nb')x"''')
    await _until(watch, _last("/data/a\udcff\nbx"))
    await watch.close()


async def test_a_watch_ends_with_its_directory(sandbox: Sandbox) -> None:
    """Then there is nothing more to tell."""
    await _do(sandbox, "mkdir gone")
    watch = await _watch(sandbox, "/data/gone")
    await _do(sandbox, "rmdir gone")
    while await watch.changes():
        pass
    assert list(await watch.changes()) == []
    await watch.close()


async def test_a_watch_ends_with_its_sandbox(subject: subjects.Subject) -> None:
    """Whoever waits is told."""
    subject.needs_isolation()
    sandbox = await subject.create()
    watch = await _watch(sandbox)
    waiting = asyncio.ensure_future(watch.changes())
    await asyncio.sleep(0)
    await sandbox.kill(EndReason.DELETED)
    assert list(await waiting) == []


async def test_closing_ends_the_wait_and_can_be_done_twice(sandbox: Sandbox) -> None:
    """And the place is free for another watch."""
    for _ in range(40):
        watch = await _watch(sandbox)
        waiting = asyncio.ensure_future(watch.changes())
        await asyncio.sleep(0)
        await watch.close()
        await watch.close()
        assert list(await waiting) == []


@pytest.mark.parametrize("path, error", [("/data/none", errors.NotFound), ("/data/file", errors.InvalidRequest)])
async def test_only_directories_can_be_watched(sandbox: Sandbox, path: str, error: type[Exception]) -> None:
    """Said at once."""
    await _do(sandbox, "touch file")
    with pytest.raises(error):
        await _watch(sandbox, path)


async def test_rights_are_those_of_the_user(subject: subjects.Subject) -> None:
    """A directory that may not be read cannot be watched; below, it is left out."""
    subject.needs_isolation()
    sandbox = await subject.create()
    await _do(sandbox, "mkdir -p secret open; chmod 700 secret; chmod 777 open")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.watch("/data/secret", user="1000", recursive=True)
    watch = await sandbox.files.watch("/data", user="1000", recursive=True)
    await _do(sandbox, "touch secret/unseen; touch open/seen")
    changes = await _until(watch, _last("/data/open/seen"))
    assert "/data/secret/unseen" not in {change.path for change in changes}
    await watch.close()


async def test_there_are_so_many_watches(subject: subjects.Subject) -> None:
    """Sixteen; those of an earlier worker have ended with it."""
    subject.needs_isolation()
    sandbox = await subject.create()
    for _ in range(16):
        await _watch(sandbox)
    with pytest.raises(errors.RateLimited):
        await _watch(sandbox)
    (again,) = (await subject.restart()).live
    for _ in range(16):
        await _watch(again)


async def test_a_reader_who_is_slow_is_told_that_changes_were_lost(subject: subjects.Subject) -> None:
    """And what happens afterwards is told again, in new directories too."""
    subject.needs_isolation()
    sandbox = await subject.create(disk_mib=512, pids=64)
    watch = await _watch(sandbox)
    await _do(sandbox, "mkdir d; seq -f d/a-rather-long-name-of-a-file-%g 1 30000 | xargs touch")
    changes = await _until(watch, lambda change: change.kind is Kind.OVERFLOW)
    assert next(change.path for change in changes if change.kind is Kind.OVERFLOW) == "/data"
    await _do(sandbox, "mkdir d/new; touch d/new/last")
    await _until(watch, _last("/data/d/new/last"))
    await watch.close()
