"""Scripts that a prepared interpreter becomes: like any other command, only sooner."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import benches
from traforo.domain import errors
from traforo.worker.execs import codes, execs, pumps
from traforo.worker.interpreters import contexts, languages, services


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        found.entry.spec = dataclasses.replace(found.entry.spec, prepare=("python",))
        yield found


@pytest.fixture
def place(bench: benches.Bench, tmp_path: Path) -> Path:
    """A directory that is one place for the files of the fake and for its commands, which see the host."""
    found = tmp_path / "code"
    inside = bench.root / str(found).lstrip("/")
    inside.mkdir(parents=True)
    found.symlink_to(inside)
    return found


@pytest.fixture
def coder(bench: benches.Bench, place: Path) -> codes.Codes:
    return codes.Codes(bench.execs, bench.files, bench.interpreters.script, str(place))


async def prepared(bench: benches.Bench) -> None:
    """Return when an interpreter is ready, with nothing left to do ahead."""
    await bench.interpreters.warm_up(bench.entry)


def code(text: str, **options: Any) -> codes.Code:
    return codes.Code(text, "python", options.pop("timeout_ms", 30_000), **options)


async def became(bench: benches.Bench, exec_id: str) -> bool:
    """Tell whether an exec was an interpreter before."""
    return bench.execs.get(bench.entry, exec_id).became is not None


async def printed(run: execs.Exec, size: int) -> None:
    await benches.until(lambda: run.log is not None and run.log.written.stdout >= size)


async def test_a_script_is_an_exec(bench: benches.Bench, coder: codes.Codes, place: Path) -> None:
    """It has its own output, exit code, name and process, and leaves no file; nothing of the interpreter shows."""
    await prepared(bench)
    text = (
        "import os, sys\nprint(sys.argv == [__file__], __name__, 'display' in dir(__builtins__), os.getpid())\n"
        "print(open(__file__).read() == open(sys.argv[0]).read(), sys.stdin.read(), os.environ['OWN'])\n"
        "print(os.environ['SANDBOX'], sorted(os.listdir('/proc/self/fd'))[:3], file=sys.stderr)\nsys.exit(3)"
    )
    result = await coder.run(bench.entry, code(text, env={"OWN": "é"}))
    assert result["stdout"] == f"True __main__ False {result['pid']}\nTrue  é\n"
    assert result["stderr"] == "yes ['0', '1', '2']\n"
    assert (result["exit_code"], result["end"], result["runtime"]) == (3, "exited", "python")
    assert await became(bench, result["exec_id"])
    assert [run.id for run in bench.execs.page(bench.entry, 9, None)[0]] == [result["exec_id"]]
    await coder._tasks.drain()
    assert list(place.iterdir()) == []


async def test_errors_are_those_of_a_script(bench: benches.Bench, coder: codes.Codes) -> None:
    """Tracebacks show the lines of the code and none of ours; what does not compile is refused."""
    await prepared(bench)
    result = await coder.run(bench.entry, code("def f():\n    return 1 / 0\nf()"))
    assert "    return 1 / 0\n" in result["stderr"]
    assert "traforo>" not in result["stderr"]
    assert (result["exit_code"], await became(bench, result["exec_id"])) == (1, True)
    await prepared(bench)
    with pytest.raises(errors.SyntaxRejected) as caught:
        await coder.run(bench.entry, code("open('ran', 'w')\nx = (", cwd=None))
    assert await became(bench, caught.value.fields["exec_id"])


async def test_threads_and_handlers_end_it(bench: benches.Bench, coder: codes.Codes) -> None:
    """Threads are waited for and what was registered for the end is done, as at the end of any script."""
    await prepared(bench)
    text = (
        "import atexit, threading, time\natexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nprint('main')"
    )
    result = await coder.run(bench.entry, code(text))
    assert (result["stdout"], result["exit_code"]) == ("main\nthread\nlast\n", 0)
    assert await became(bench, result["exec_id"])


async def test_deadlines_and_signals(bench: benches.Bench, coder: codes.Codes) -> None:
    """A deadline kills the tree; a signal reaches the process itself."""
    await prepared(bench)
    text = "import subprocess, sys\nprint('on', flush=True)\nsubprocess.run(['sleep', '100'])"
    result = await coder.run(bench.entry, code(text, timeout_ms=700))
    assert (result["end"], result["exit_code"], result["stdout"]) == ("timed_out", 124, "on\n")
    await prepared(bench)
    run = await coder.begin(bench.entry, code("import time\nprint('on', flush=True)\ntime.sleep(100)"))
    await printed(run, 3)
    await bench.execs.signal(run, 15, tree=False)
    await bench.execs.wait(run)
    assert run.became is not None
    assert (await bench.execs.result(run))["signal"] == 15


@pytest.mark.parametrize(
    "options, text",
    [
        ({"cwd": "/"}, "1"),
        ({"env": {"PYTHONHASHSEED": "1"}}, "1"),
        ({"env": {"TZ": "UTC"}}, "1"),
        ({}, "#" * services.MAX_SCRIPT + "\n"),
    ],
    ids=["cwd", "hash", "zone", "long"],
)
async def test_what_wants_a_fresh_one(
    bench: benches.Bench, coder: codes.Codes, options: dict[str, Any], text: str
) -> None:
    """Another directory, variables that are read once and long code start an interpreter from nothing."""
    await prepared(bench)
    result = await coder.run(bench.entry, code(text, **options))
    assert (result["exit_code"], await became(bench, result["exec_id"])) == (0, False)


async def test_each_interpreter_is_used_once(bench: benches.Bench, coder: codes.Codes) -> None:
    """Of many at once one gets what is prepared; none shares anything with another, and all of them run."""
    await prepared(bench)
    text = "import os\nprint(os.getpid(), 'seen' in globals())\nseen = 1"
    told = await asyncio.gather(*(coder.run(bench.entry, code(text)) for _ in range(4)))
    assert len({result["stdout"] for result in told}) == 4
    assert all(result["stdout"].endswith("False\n") for result in told)
    assert sorted([await became(bench, result["exec_id"]) for result in told]) == [False, False, False, True]


async def test_a_pipe_that_somebody_made_small(bench: benches.Bench, coder: codes.Codes) -> None:
    """What does not fit into it runs in an interpreter of its own."""
    await prepared(bench)
    (found,) = bench.interpreters._boxes[bench.entry.text_id].values()
    assert found._channel is not None
    fcntl.fcntl(found._channel._stdin, fcntl.F_SETPIPE_SZ, 4096)
    result = await coder.run(bench.entry, code("print(1)" + "#" * 12_000))
    assert (result["stdout"], await became(bench, result["exec_id"])) == ("1\n", False)


async def test_a_script_that_nobody_knows_of(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds a prepared interpreter which does not answer ends it: it became a script just before a crash."""
    monkeypatch.setattr(contexts, "DOUBT_SECONDS", 0.3)
    await prepared(bench)
    (found,) = bench.interpreters._boxes[bench.entry.text_id].values()
    running = found.become(languages.script("/tmp/x.py", b"import time\ntime.sleep(100)", {}))
    assert running is not None
    pumps.close(running)
    await bench.crash()
    (left,) = await bench.entry.running.execs() if bench.entry.running else ()
    await asyncio.wait_for(asyncio.shield(left.ended), 20)
    assert left.ended.result().signal == 9


@pytest.mark.parametrize("prompt", [False, True], ids=["later", "at once"])
async def test_a_crash_in_the_middle(bench: benches.Bench, coder: codes.Codes, prompt: bool) -> None:
    """The next worker goes on with a script that an interpreter became, and loses nothing of its output."""
    await prepared(bench)
    text = "import time\nfor n in range(8):\n    print(n, flush=True)\n    time.sleep(0.15)\nraise SystemExit(5)"
    run = await coder.begin(bench.entry, code(text))
    await benches.until(lambda: run.id in bench.journal.known)
    if not prompt:
        await printed(run, 4)
    await bench.crash()
    found = bench.execs.get(bench.entry, run.id)
    assert found.outcome is None
    await bench.execs.wait(found)
    result = await bench.execs.result(found)
    assert (result["stdout"], result["exit_code"]) == ("".join(f"{n}\n" for n in range(8)), 5)
    assert bench.interpreters.all(bench.entry) == []


async def test_a_prepared_one_over_a_crash(bench: benches.Bench, place: Path) -> None:
    """What was prepared and not used is used by the next worker."""
    await prepared(bench)
    await bench.crash()
    await benches.until(lambda: bench.interpreters._prepared(bench.entry, services.Creation("python")) is not None)
    coder = codes.Codes(bench.execs, bench.files, bench.interpreters.script, str(place))
    result = await coder.run(bench.entry, code("print(1)"))
    assert (result["stdout"], await became(bench, result["exec_id"])) == ("1\n", True)
