"""Code in three languages: run, refused when it does not compile, and never refused for what happens while it runs."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import benches
from traforo.domain import errors
from traforo.worker.execs import codes

RUNTIMES = [
    "python",
    pytest.param("node", marks=pytest.mark.skipif(not shutil.which("node"), reason="no node")),
    "bash",
]
HELLO = {
    "python": "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)",
    "node": "console.log('out'); console.error('err'); process.exitCode = 3",
    "bash": "echo out; echo err >&2; exit 3",
}
BROKEN = {
    "python": "open('ran', 'w')\nprint('never'\n",
    "node": "require('fs').writeFileSync('ran', ''); console.log('never'",
    "bash": "echo > ran\nif true; then\necho never\n",
}
SLEEP = {
    "python": "print('started', flush=True)\nwhile True: pass",
    "node": "console.log('started'); setInterval(() => {}, 1000)",
    "bash": "echo started; while :; do sleep 1; done",
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


@pytest.fixture
def coder(bench: benches.Bench, tmp_path: Path) -> codes.Codes:
    """Code runner whose directory is one place for the files of the fake and for its commands, which see the host."""
    place = tmp_path / "code"
    inside = bench.root / str(place).lstrip("/")
    inside.mkdir(parents=True)
    place.symlink_to(inside)
    return codes.Codes(bench.execs, bench.files, directory=str(place))


def code(text: str, runtime: str, **options: Any) -> codes.Code:
    return codes.Code(text, runtime, options.pop("timeout_ms", 30_000), **options)


def left(coder: codes.Codes) -> list[str]:
    return [path.name for path in Path(coder._directory).iterdir()]


async def settled(coder: codes.Codes) -> list[str]:
    """Return what is left of the code when all has been cleaned up."""
    await coder._tasks.drain()
    return left(coder)


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_result(bench: benches.Bench, coder: codes.Codes, runtime: str) -> None:
    """Code gives its output and its own exit code, and leaves no file behind."""
    result = await coder.run(bench.entry, code(HELLO[runtime], runtime))
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)
    assert result["runtime"] == runtime
    assert await settled(coder) == []
    assert [run.id for run in bench.execs.page(bench.entry, 9, None)[0]] == [result["exec_id"]]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_code_that_does_not_compile(bench: benches.Bench, coder: codes.Codes, runtime: str) -> None:
    """Code that does not compile is refused with what its compiler says; none of it was executed."""
    with pytest.raises(errors.SyntaxRejected) as caught:
        await coder.run(bench.entry, code(BROKEN[runtime], runtime, cwd="/tmp"))
    told = caught.value.fields
    assert told["runtime"] == runtime
    assert told["stderr"] != ""
    assert told["exit_code"] != 0
    assert not (bench.root / "tmp" / "ran").exists()
    assert await settled(coder) == []
    result = await bench.execs.result(bench.execs.get(bench.entry, told["exec_id"]))
    assert (result["stderr"], result["exit_code"]) == (told["stderr"], told["exit_code"])
    assert len(bench.execs.page(bench.entry, 9, None)[0]) == 1


@pytest.mark.parametrize("text", ["  print(1)", "if 1:\n\tx\n        y", "def f(:\n pass", "x = '", "return 1"])
async def test_every_kind_of_python_refusal(bench: benches.Bench, coder: codes.Codes, text: str) -> None:
    """Wrong indentation and what only the compiler notices are refusals as well."""
    with pytest.raises(errors.SyntaxRejected):
        await coder.run(bench.entry, code(text, "python"))


@pytest.mark.parametrize(
    "runtime, text",
    [
        ("python", "print('ran')\nexec('1 +')"),
        ("python", "print('ran')\nimport ast\nast.parse('(')"),
        ("python", "print('ran')\nraise IndentationError('mine')"),
        ("python", "print('ran')\nimport sys\nprint('SyntaxError: no', file=sys.stderr)\nsys.exit(1)"),
        pytest.param(
            "node",
            "console.log('ran'); JSON.parse('{')",
            marks=pytest.mark.skipif(not shutil.which("node"), reason="no node"),
        ),
        pytest.param(
            "node",
            "console.log('ran'); eval('(')",
            marks=pytest.mark.skipif(not shutil.which("node"), reason="no node"),
        ),
        ("bash", "echo ran; eval 'if'; exit 1"),
    ],
)
async def test_mistakes_at_run_time(bench: benches.Bench, coder: codes.Codes, runtime: str, text: str) -> None:
    """A syntax error that the code met while it ran is a result: some of the code was executed."""
    result = await coder.run(bench.entry, code(text, runtime))
    assert (result["stdout"], result["exit_code"]) == ("ran\n", 1)
    assert len(bench.execs.page(bench.entry, 9, None)[0]) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_deadline(bench: benches.Bench, coder: codes.Codes, runtime: str) -> None:
    """Code that takes too long is killed, with its output so far and 124."""
    result = await coder.run(bench.entry, code(SLEEP[runtime], runtime, timeout_ms=1500))
    assert (result["end"], result["exit_code"], result["stdout"]) == ("timed_out", 124, "started\n")
    assert await settled(coder) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_missing_interpreter(bench: benches.Bench, coder: codes.Codes, runtime: str) -> None:
    """Where there is no interpreter the error names what is missing, and nothing is left."""
    with pytest.raises(errors.StartFailed) as caught:
        await coder.run(bench.entry, code(HELLO[runtime], runtime, env={"PATH": "/nowhere"}))
    assert (caught.value.fields["stage"], caught.value.fields["errno_name"]) == ("exec", "ENOENT")
    assert caught.value.hint is not None
    assert await settled(coder) == []
    assert bench.execs.page(bench.entry, 9, None)[0] == []


async def test_other_name_of_python(bench: benches.Bench, coder: codes.Codes) -> None:
    """Where there is no `python3`, `python` will do."""
    tools = bench.root / "tools"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)
    result = await coder.run(bench.entry, code("print(1)", "python", env={"PATH": str(tools)}))
    assert (result["stdout"], result["command"][0]) == ("1\n", "python")


async def test_without_waiting(bench: benches.Bench, coder: codes.Codes) -> None:
    """Code can be begun and asked about later; its file goes when it has ended."""
    run = await coder.begin(bench.entry, code("print('later')", "python"))
    await bench.execs.wait(run)
    assert (await bench.execs.result(run))["stdout"] == "later\n"
    assert await settled(coder) == []


async def test_caller_who_goes_away(bench: benches.Bench, coder: codes.Codes) -> None:
    """Code runs to its end and is cleaned up when the one who waits for it goes away."""
    text = (
        "import time\nopen('started', 'w')\nwhile True:\n  try: open('go'); break\n  except OSError: time.sleep(0.01)"
    )
    task = asyncio.ensure_future(coder.run(bench.entry, code(text, "python", cwd="/tmp")))
    await benches.until((bench.root / "tmp" / "started").exists)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (run,) = bench.execs.page(bench.entry, 9, None)[0]
    (bench.root / "tmp" / "go").write_text("")
    await bench.execs.wait(run)
    assert run.outcome is not None
    assert run.outcome.exit_code == 0
    assert await settled(coder) == []


async def test_code_of_a_megabyte(bench: benches.Bench, coder: codes.Codes) -> None:
    """Code may be longer than a command line could be."""
    text = "x = '" + "é" * 500_000 + "'\nprint(len(x))"
    assert (await coder.run(bench.entry, code(text, "python")))["stdout"] == "500000\n"
