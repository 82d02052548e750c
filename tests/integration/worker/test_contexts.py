"""Code contexts of one sandbox over a fake runtime: real interpreters, real pipes, workers that die."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes import benches
from traforo.domain import errors, states
from traforo.worker.interpreters import allowances, contexts, runs, services

RUNTIMES = [
    "python",
    pytest.param("node", marks=pytest.mark.skipif(not shutil.which("node"), reason="no node")),
    "bash",
]
LOOP = {"python": "while True: pass", "node": "while (true) {}", "bash": "while :; do :; done"}
STUBBORN = {
    "python": "import signal, time\nwhile True:\n    try: time.sleep(100)\n    except KeyboardInterrupt: pass",
    "node": "await new Promise(r => setImmediate(r)); while (true) {}",
    "bash": "trap '' INT; while :; do :; done",
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


async def made(bench: benches.Bench, runtime: str = "python", **options: Any) -> contexts.Context:
    return await bench.interpreters.create(bench.entry, services.Creation(runtime, **options))


def begun(bench: benches.Bench, context: contexts.Context, code: str, **options: Any) -> runs.Run:
    return bench.interpreters.run(bench.entry, context.id, code, **{"timeout_ms": 20_000, **options})


async def result(bench: benches.Bench, run: runs.Run) -> dict[str, Any]:
    """Wait for a run and return its answer as a caller gets it."""
    await bench.execs.wait(run.exec)
    answer: dict[str, Any] = json.loads(msgspec.json.encode(await bench.interpreters.result(run)))
    return answer


async def done(bench: benches.Bench, context: contexts.Context, code: str, **options: Any) -> dict[str, Any]:
    return await result(bench, begun(bench, context, code, **options))


async def printed(bench: benches.Bench, run: runs.Run, text: str) -> None:
    """Return when a run has printed something."""
    found = ""
    async for frame in bench.frames(run.exec):
        found += frame.data if frame.type == "stdout" else ""
        if text in found:
            return


def texts(answer: dict[str, Any]) -> list[str]:
    return [found["text/plain"] for found in answer["results"]]


async def test_a_run_is_an_exec(bench: benches.Bench) -> None:
    """A run is listed, read and replayed as every exec is; what its code showed comes as frames of their own."""
    context = await made(bench)
    answer = await done(bench, context, "print('out')\nimport sys; print('err', file=sys.stderr)\n6 * 7", tag="mine")
    assert (answer["stdout"], answer["stderr"], answer["exit_code"], answer["end"]) == ("out\n", "err\n", 0, "exited")
    assert (answer["context_id"], answer["runtime"], answer["tag"]) == (context.id, "python", "mine")
    assert answer["results"] == [{"text/plain": "42", "is_main": True}]
    assert (answer["error"], answer["execution_count"], answer["results_truncated"]) == (None, 1, False)
    run = bench.execs.get(bench.entry, answer["exec_id"])
    frames = [(frame.type, frame.data) async for frame in bench.frames(run)]
    assert ("result", '{"text/plain":"42","is_main":true}') in frames
    assert frames[-1][0] == "exit"
    listed, _ = bench.execs.page(bench.entry, 9, None)
    assert [run.id] == [found.id for found in listed]


async def test_an_error_of_the_code(bench: benches.Bench) -> None:
    """What the code did not catch is told apart from its output, with the exit code 1."""
    context = await made(bench)
    answer = await done(bench, context, "print('so far')\n1 / 0")
    assert (answer["exit_code"], answer["stdout"], answer["stderr"]) == (1, "so far\n", "")
    assert (answer["error"]["name"], answer["error"]["value"]) == ("ZeroDivisionError", "division by zero")
    assert answer["error"]["traceback"][-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_runs_come_one_after_the_other(bench: benches.Bench, runtime: str) -> None:
    """Runs of one context keep their order and its state; contexts run side by side."""
    first, second = await made(bench, runtime), await made(bench, runtime)
    step = {
        "python": "n = globals().get('n', 0) + 1; print(n)",
        "node": "globalThis.n = (globalThis.n ?? 0) + 1; console.log(n)",
    }
    code = step.get(runtime, "n=$((n + 1)); echo $n")
    going = [begun(bench, context, code) for _ in range(5) for context in (first, second)]
    answers = [await result(bench, run) for run in going]
    assert [a["stdout"] for a in answers] == ["1\n", "1\n", "2\n", "2\n", "3\n", "3\n", "4\n", "4\n", "5\n", "5\n"]
    assert (first.status, first.execution_count) == ("idle", 5)


async def test_one_context_waits_for_no_other(bench: benches.Bench) -> None:
    """A context that is busy holds up nobody else."""
    busy, free = await made(bench), await made(bench)
    run = begun(bench, busy, "import time; time.sleep(100)")
    assert texts(await done(bench, free, "1")) == ["1"]
    assert (busy.status, free.status) == ("busy", "idle")
    await bench.interpreters.delete(bench.entry, busy.id)
    assert run.exec.outcome is not None


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_interrupt(bench: benches.Bench, runtime: str) -> None:
    """An interrupt ends the run and not the context; without a run it does nothing."""
    context = await made(bench, runtime)
    say = {"python": "print('go')\n", "node": "console.log('go');", "bash": "echo go\n"}[runtime]
    await context.interrupt()
    run = begun(bench, context, say + LOOP[runtime])
    await printed(bench, run, "go")
    await context.interrupt()
    assert (await result(bench, run))["exit_code"] == 130
    assert (await done(bench, context, "print(1)" if runtime == "python" else "1"))["exit_code"] in {0, 127}


@pytest.mark.parametrize(
    "code",
    ["import os; os.system('echo go; sleep 100')", "import subprocess as s; print('go'); s.run(['sleep', '100'])"],
)
async def test_interrupt_of_a_process_that_the_code_waits_for(bench: benches.Bench, code: str) -> None:
    """An interrupt reaches what the interpreter waits for, where that ignores it itself."""
    context = await made(bench)
    run = begun(bench, context, code)
    await printed(bench, run, "go")
    await context.interrupt()
    await result(bench, run)
    assert texts(await done(bench, context, "2")) == ["2"]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_deadline_interrupts(bench: benches.Bench, runtime: str) -> None:
    """Code past its deadline is broken and its end is `timed_out`; the context and the runs behind it go on."""
    context = await made(bench, runtime)
    run = begun(bench, context, LOOP[runtime], timeout_ms=200)
    behind = begun(bench, context, "1" if runtime != "bash" else ":")
    answer = await result(bench, run)
    assert (answer["end"], answer["exit_code"]) == ("timed_out", 124)
    assert (await result(bench, behind))["exit_code"] == 0
    assert context.status == "idle"


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_deadline_kills_what_does_not_listen(bench: benches.Bench, runtime: str) -> None:
    """Code that goes on after its interrupt is killed with its context and all its processes."""
    context = await made(bench, runtime)
    answer = await done(bench, context, STUBBORN[runtime], timeout_ms=200)
    assert (answer["end"], answer["exit_code"]) == ("timed_out", 124)
    assert context.status == "dead"
    with pytest.raises(errors.Conflict) as caught:
        begun(bench, context, "1")
    assert "restart" in str(caught.value.hint)


@pytest.mark.parametrize(
    "code, wanted",
    [
        ("os._exit(7)", ("exited", 7, None)),
        ("os.kill(os.getpid(), 9)", ("signalled", 137, 9)),
        ("os.kill(os.getpid(), 11)", ("signalled", 139, 11)),
    ],
)
async def test_the_interpreter_ends(bench: benches.Bench, code: str, wanted: tuple[Any, ...]) -> None:
    """A run that ends its interpreter has that end, with all its output; what waited behind it is lost."""
    context = await made(bench)
    run = begun(bench, context, f"import os; print('x' * 200_000, flush=True); {code}")
    behind = begun(bench, context, "1")
    answer = await result(bench, run)
    assert wanted == (answer["end"], answer["exit_code"], answer["signal"])
    assert answer["stdout"] == "x" * 200_000 + "\n"
    assert (await result(bench, behind))["end"] == "lost"
    assert context.status == "dead"


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_restart(bench: benches.Bench, runtime: str) -> None:
    """A restart ends what runs and gives a fresh interpreter under the same id, of a dead context too."""
    context = await made(bench, runtime, env={"OWN": "yes"})
    run = begun(bench, context, LOOP[runtime])
    await benches.until(lambda: context.status == "busy")
    again = await bench.interpreters.restart(bench.entry, context.id)
    assert (await result(bench, run))["end"] == "signalled"
    assert (again.id, again.status, again.execution_count) == (context.id, "idle", 0)
    code = {
        "python": "import os; print(os.environ['OWN'])",
        "node": "console.log(process.env.OWN)",
        "bash": "echo $OWN",
    }
    answer = await done(bench, context, code[runtime])
    assert (answer["stdout"], answer["execution_count"]) == ("yes\n", 1)
    await done(
        bench, context, {"python": "import os; os._exit(1)", "node": "process.reallyExit(1)", "bash": "exit 1"}[runtime]
    )
    assert context.status == "dead"
    await bench.interpreters.restart(bench.entry, context.id)
    assert (await done(bench, context, code[runtime]))["stdout"] == "yes\n"


async def test_delete(bench: benches.Bench) -> None:
    """A deleted context is gone, with what it started; two deletes at once are one and a `NotFound`."""
    context = await made(bench)
    run = begun(bench, context, "import subprocess; p = subprocess.Popen(['sleep', '1000']); print(p.pid)")
    pid = int((await result(bench, run))["stdout"])
    ends = await asyncio.gather(
        *(bench.interpreters.delete(bench.entry, context.id) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["NoneType", "NotFound"]
    await benches.until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    with pytest.raises(errors.NotFound):
        bench.interpreters.get(bench.entry, context.id)
    assert bench.interpreters.all(bench.entry) == []


async def test_limits(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of a sandbox and runs that wait in one are bounded."""
    monkeypatch.setattr(services, "MAX_CONTEXTS", 2)
    monkeypatch.setattr(contexts, "MAX_QUEUED", 3)
    context = await made(bench)
    await made(bench, "bash")
    with pytest.raises(errors.RateLimited):
        await made(bench)
    going = [begun(bench, context, "import time; time.sleep(0.05)") for _ in range(4)]
    with pytest.raises(errors.RateLimited):
        begun(bench, context, "1")
    assert [(await result(bench, run))["exit_code"] for run in going] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "wanted, kind",
    [
        ({"cwd": "/nowhere"}, errors.StartFailed),
        ({"cwd": "here"}, errors.InvalidRequest),
        ({"env": {"A=B": "x"}}, errors.InvalidRequest),
        ({"env": {"A": "x" * 40_000}}, errors.TooLarge),
        ({"env": {"PATH": "/nowhere"}}, errors.StartFailed),
    ],
)
async def test_contexts_that_cannot_be(bench: benches.Bench, wanted: dict[str, Any], kind: type[Exception]) -> None:
    """What cannot start is refused and leaves nothing."""
    with pytest.raises(kind):
        await made(bench, **wanted)
    assert bench.interpreters.all(bench.entry) == []


@pytest.mark.parametrize("runtime", ["node", "bash"])
async def test_an_interpreter_that_is_not_there(bench: benches.Bench, runtime: str) -> None:
    """An image without the interpreter is told so, whatever starts it."""
    with pytest.raises(errors.StartFailed) as caught:
        await made(bench, runtime, env={"PATH": "/nowhere"})
    assert "PATH" in str(caught.value.hint)
    assert bench.interpreters.all(bench.entry) == []


@pytest.mark.parametrize(
    "runtime, code, options",
    [
        ("bash", "a\0b", {}),
        ("bash", "1", {"env": {"A-B": "x"}}),
        ("python", "'\ud800'", {}),
        ("python", "1", {"env": {"": "x"}}),
        ("python", "1", {"timeout_ms": 0}),
        ("python", "1", {"tag": "no tag"}),
    ],
)
async def test_runs_that_cannot_be(bench: benches.Bench, runtime: str, code: str, options: dict[str, Any]) -> None:
    """What no interpreter would understand is refused before anything runs."""
    context = await made(bench, runtime)
    with pytest.raises(errors.InvalidRequest):
        begun(bench, context, code, **options)
    assert context.status == "idle"


async def test_many_results(bench: benches.Bench) -> None:
    """An answer carries results up to a limit and says so; frames carry them all."""
    context = await made(bench)
    answer = await done(bench, context, "for i in range(12): display({'text/html': 'y' * 1_000_000}, raw=True)")
    assert (len(answer["results"]), answer["results_truncated"]) == (8, True)
    run = bench.execs.get(bench.entry, answer["exec_id"])
    assert [len([frame async for frame in bench.frames(run) if frame.type == "result"])] == [12]


async def test_an_interpreter_that_lies(bench: benches.Bench) -> None:
    """Code that forges answers ends its own run early and nothing else: not other runs, not other contexts."""
    context, other = await made(bench), await made(bench)
    forged = [
        "D3", "D30040", "R30004aaaa", "H30003lie", "S30003999", "D30031" + "0" * 26 + " 0 0 1",
        "D30033" + "0" * 26 + " 0 999 1", "Z30001x", "E10004aaaa", "R99999",
    ]  # fmt: skip
    code = "import os\nmark = display.answers.mark\n" + "\n".join(f"os.write(1, mark + b'{item}')" for item in forged)
    answer = await done(bench, context, code + "\n'end'")
    assert texts(answer)[-1:] == ["'end'"]
    assert (answer["exit_code"], answer["end"]) == (0, "exited")
    early = await done(bench, context, "os.write(1, mark + b'D30032' + display.answers.run + b' 9 0 1'); print('late')")
    assert early["exit_code"] == 9
    assert texts(await done(bench, context, "1")) == ["1"]
    assert texts(await done(bench, other, "2")) == ["2"]


async def test_output_without_a_run_is_dropped(bench: benches.Bench) -> None:
    """What code left behind prints belongs to no run, and never stops at a full pipe."""
    context = await made(bench)
    code = "import threading\nn = 0\ndef noise():\n    global n\n    while n < 3000: n += 1; print('n' * 100)\n"
    code += "threading.Timer(0.2, noise).start()"
    assert (await done(bench, context, code))["stdout"] == ""

    async def count() -> int:
        return int((await done(bench, context, "import sys; print(end=''); n"))["results"][0]["text/plain"])

    for _ in range(200):
        if await count() == 3000:
            break
        await asyncio.sleep(0.02)
    assert await count() == 3000


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_worker_that_dies_loses_no_context(bench: benches.Bench, runtime: str) -> None:
    """The next worker finds the contexts with their state, their names and their counts."""
    context = await made(bench, runtime, name="mine", env={"OWN": "yes"})
    await done(bench, context, {"python": "x = 1", "node": "let x = 1", "bash": "x=1"}[runtime])
    await bench.crash()
    found = bench.interpreters.all(bench.entry)
    assert [(context.id, "mine", "idle")] == [(one.id, one.label.name, one.status) for one in found]
    answer = await done(bench, found[0], {"python": "print(x)", "node": "console.log(x)", "bash": "echo $x"}[runtime])
    assert (answer["stdout"], answer["execution_count"]) == ("1\n", 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_a_worker_that_dies_in_the_middle_of_a_run(bench: benches.Bench, runtime: str, tmp_path: Path) -> None:
    """A run goes on without a worker; the next one gets all its output, its results and its end, once each."""
    context = await made(bench, runtime)
    gate = tmp_path / "gate"
    many = 20_000
    code = {
        "python": f"import os, time\nprint('go'); display(1)\nwhile not os.path.exists('{gate}'): time.sleep(0.01)\n"
        f"for i in range({many}): print(i)\ndisplay(2)\n3",
        "node": f"console.log('go'); display(1); const fs = require('fs'); while (!fs.existsSync('{gate}')) {{}}\n"
        f"for (let i = 0; i < {many}; i++) console.log(i)\ndisplay(2); await 0; 3",
        "bash": f"echo go; while [ ! -e {gate} ]; do sleep 0.01; done; for ((i = 0; i < {many}; i++)); do echo $i; done",
    }[runtime]
    run = begun(bench, context, code)
    await printed(bench, run, "go")
    if runtime != "bash":
        await benches.until(lambda: run.seen == 1)
    bench.journal.put_exec(run.exec.record())
    await bench.crash()
    gate.touch()
    left = bench.execs.get(bench.entry, run.exec.id)
    await bench.execs.wait(left)
    answer = await bench.execs.result(left)
    assert answer["stdout"] == "go\n" + "".join(f"{i}\n" for i in range(many))
    assert (answer["end"], answer["exit_code"]) == (states.ExecEnd.EXITED, 0)
    shown = [json.loads(frame.data)["text/plain"] async for frame in bench.frames(left) if frame.type == "result"]
    assert shown == ([] if runtime == "bash" else ["1", "2", "3"])


async def test_what_a_dead_worker_had_read_is_told_again(bench: benches.Bench) -> None:
    """Results and an end that an earlier worker took from the pipe and could not write down are not lost."""
    context = await made(bench)
    run = begun(bench, context, "print('go')\nimport time; time.sleep(0.1)\ndisplay(1)\ndisplay(2)\n3")
    await printed(bench, run, "go")
    channel = context._channel
    assert channel is not None
    heard: list[object] = []
    channel._on_message = heard.append
    await benches.until(lambda: len(heard) == 4)  # three results and the end
    bench.journal.put_exec(run.exec.record())
    await bench.crash()
    left = bench.execs.get(bench.entry, run.exec.id)
    await bench.execs.wait(left)
    shown = [json.loads(frame.data)["text/plain"] async for frame in bench.frames(left) if frame.type == "result"]
    assert shown == ["1", "2", "3"]
    assert left.outcome is not None
    assert left.outcome.exit_code == 0


async def test_a_run_that_was_never_sent_is_lost(bench: benches.Bench) -> None:
    """What waited when the worker died is told lost, and the context goes on."""
    context = await made(bench)
    busy = begun(bench, context, "import time; print('go'); time.sleep(0.5); 1")
    await printed(bench, busy, "go")
    waiting = begun(bench, context, "2")
    for run in (busy, waiting):
        bench.journal.put_exec(run.exec.record())
    await bench.crash()
    ends = []
    for run in (busy, waiting):
        left = bench.execs.get(bench.entry, run.exec.id)
        await bench.execs.wait(left)
        assert left.outcome is not None
        ends.append(left.outcome.end)
    assert ends == [states.ExecEnd.EXITED, states.ExecEnd.LOST]
    assert texts(await done(bench, bench.interpreters.all(bench.entry)[0], "4")) == ["4"]


async def test_a_context_that_dies_without_a_worker(bench: benches.Bench) -> None:
    """An interpreter that ended meanwhile is a dead context, and its run has that end."""
    context = await made(bench)
    run = begun(bench, context, "import os, time; print('go', flush=True); time.sleep(0.2); os._exit(5)")
    await printed(bench, run, "go")
    bench.journal.put_exec(run.exec.record())
    await bench.crash()
    left = bench.execs.get(bench.entry, run.exec.id)
    await bench.execs.wait(left)
    assert left.outcome is not None
    assert left.outcome.exit_code == 5
    assert [one.status for one in bench.interpreters.all(bench.entry)] == ["dead"]


async def test_a_context_that_dies_while_it_is_taken_over(
    bench: benches.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run has that end, and what it printed last, also where the end is told before the run is known again."""
    context = await made(bench)
    run = begun(
        bench,
        context,
        "import os, time; print('go', flush=True); time.sleep(0.3); print('gone', flush=True); os._exit(5)",
    )
    await printed(bench, run, "go")
    bench.journal.put_exec(run.exec.record())
    adopted = services.Interpreters.adopted

    async def late(service: services.Interpreters) -> None:
        for one in service._adopted:
            assert one.running is not None
            await one.running.ended
        await asyncio.sleep(0.01)
        await adopted(service)

    monkeypatch.setattr(services.Interpreters, "adopted", late)
    await bench.crash()
    left = bench.execs.get(bench.entry, run.exec.id)
    await asyncio.wait_for(bench.execs.wait(left), 20)
    told = await bench.execs.result(left)
    assert (told["exit_code"], told["stdout"]) == (5, "go\ngone\n")


async def test_the_sandbox_dies(bench: benches.Bench) -> None:
    """Runs end with their sandbox."""
    context = await made(bench)
    run = begun(bench, context, "import time; time.sleep(100)")
    await benches.until(lambda: context.status == "busy")
    await bench.die()
    await bench.execs.wait(run.exec)
    assert context.status == "dead"


async def test_prepared(bench: benches.Bench) -> None:
    """A prepared interpreter is in no list until somebody asks; then there is another; a restart keeps them apart."""
    bench.entry.spec = dataclasses.replace(bench.entry.spec, prepare=("python",))
    bench.interpreters.prepare(bench.entry)
    box = bench.interpreters._boxes
    await benches.until(lambda: len(box.get(bench.entry.text_id, {})) == 1)
    assert bench.interpreters.all(bench.entry) == []
    spare = next(iter(box[bench.entry.text_id].values()))
    with pytest.raises(errors.NotFound):
        bench.interpreters.get(bench.entry, spare.id)
    context = await made(bench)
    assert (context.id, texts(await done(bench, context, "1"))) == (spare.id, ["1"])
    await benches.until(lambda: len(box[bench.entry.text_id]) == 2)
    other = await made(bench, cwd="/")
    assert texts(await done(bench, other, "__import__('os').getcwd()")) != [""]
    await bench.crash()
    await benches.until(lambda: len(bench.interpreters.all(bench.entry)) == 2)
    await asyncio.sleep(0.1)
    assert sorted([context.id, other.id]) == [one.id for one in bench.interpreters.all(bench.entry)]


async def test_routes(bench: benches.Bench) -> None:
    """The whole life of a context over HTTP."""
    async with bench.client() as client:
        base = f"http://worker/sandboxes/{bench.entry.text_id}"
        made = await client.post(f"{base}/contexts", json={"runtime": "python", "name": "n"})
        assert made.status_code == 201
        place = f"{base}/contexts/{made.json()['context_id']}"
        ran = await client.post(f"{place}/run", json={"code": "print(1)\n2"})
        assert (ran.status_code, ran.json()["stdout"], ran.json()["results"][0]["text/plain"]) == (200, "1\n", "2")
        begun = await client.post(f"{place}/run", json={"code": "print(3)", "wait": False})
        assert begun.status_code == 202
        assert (await client.get(place)).json()["name"] == "n"
        assert [made.json()["context_id"]] == [
            c["context_id"] for c in (await client.get(f"{base}/contexts")).json()["contexts"]
        ]
        assert (await client.post(f"{place}/interrupt")).status_code == 204
        assert (await client.post(f"{place}/restart")).json()["execution_count"] == 0
        assert (await client.post(f"{place}/run", json={"code": "1", "no": 1})).status_code == 400
        assert (await client.post(f"{place}/run", json={"code": "x" * (1024 * 1024 + 1)})).status_code == 413
        assert (
            await client.post(f"{place}/run", json={"code": "'" + "x" * (1024 * 1024 - 3) + "';"})
        ).status_code == 200
        assert (await client.post(f"{base}/contexts/ctx_bad/run", json={"code": "1"})).status_code == 400
        assert (await client.delete(place)).status_code == 204
        assert (await client.delete(place)).status_code == 404
        assert (await client.post(f"{place}/run", json={"code": "1"})).status_code == 404


async def test_code_that_waits_has_a_limit(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All code that waits in one sandbox has one limit, and gives its room back when it has run."""
    monkeypatch.setattr(allowances, "MAX_WAITING_BYTES", 3_000)
    one, other = await made(bench), await made(bench)
    busy = begun(bench, one, "import time\nwhile True: time.sleep(0.01)")
    waits = [begun(bench, one, "#" * 1_300), begun(bench, other, "#" * 1_300)]
    await bench.execs.wait(waits[1].exec)
    waits.append(begun(bench, one, "#" * 1_300))
    with pytest.raises(errors.RateLimited):
        begun(bench, other, "#" * 1_300)
    await one.interrupt()
    for run in (busy, *waits):
        await bench.execs.wait(run.exec)
    assert (await done(bench, other, "#" * 2_900))["exit_code"] == 0
    assert bench.interpreters._allowance(bench.entry).waiting == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("says", [True, False], ids=["with output", "without"])
async def test_an_end_that_was_told_outlives_its_worker(bench: benches.Bench, runtime: str, says: bool) -> None:
    """A run whose end was told before the journal had it keeps that end, although its interpreter has run other code
    since.
    """
    context = await made(bench, runtime)
    code = {"python": "print(1)", "node": "console.log(1)", "bash": "echo 1"}[runtime] if says else ""
    ran = [begun(bench, context, code) for _ in range(3)]
    for run in ran:
        bench.journal.put_exec(run.exec.record())
    bench.journal.held = True
    told = [(await result(bench, run))["end"] for run in ran]
    await bench.crash()
    left = [bench.execs.get(bench.entry, run.exec.id) for run in ran]
    await asyncio.gather(*map(bench.execs.wait, left))
    assert [run.outcome.end.value for run in left if run.outcome] == told == ["exited"] * 3


async def test_an_answer_waits_for_the_journal(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is answered with its end is one that the next worker knows."""
    context = await made(bench)
    safe: list[str] = []

    async def flush() -> None:
        safe.extend(name for name, record in bench.journal.known.items() if record.ended_at is not None)

    monkeypatch.setattr(bench.journal, "flush", flush)
    async with bench.client() as client:
        url = f"http://worker/sandboxes/{bench.entry.text_id}/contexts/{context.id}/run"
        answer = (await client.post(url, json={"code": "1"})).json()
    assert safe == [answer["exec_id"]]


async def test_an_interrupt_of_an_interpreter_that_starts(bench: benches.Bench, tmp_path: Path) -> None:
    """Code that was asked for and has not begun is broken when it begins, and its context lives on."""
    gate = slow_python(tmp_path)
    context = await made(bench, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    run = begun(bench, context, "while True: pass")
    await context.interrupt()
    await asyncio.sleep(contexts.TREE_SECONDS + contexts.ASK_SECONDS + 0.2)  # what it does by now, it does too early
    gate.touch()
    answer = await result(bench, run)
    assert (answer["end"], answer["exit_code"], context.status) == ("exited", 130, "idle")


async def test_a_deadline_while_an_interpreter_starts(bench: benches.Bench, tmp_path: Path) -> None:
    """A run whose deadline passes before its interpreter is there has timed out, and was not signalled."""
    slow_python(tmp_path)
    context = await made(bench, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    answer = await done(bench, context, "1", timeout_ms=200)
    assert (answer["end"], answer["exit_code"], context.status) == ("timed_out", 124, "dead")


@pytest.mark.parametrize(
    "runtime, code",
    [
        ("python", "import os; os.execvp('sleep', ['sleep', '100'])"),
        ("bash", "trap - INT; exec sleep 100"),
    ],
)
async def test_a_deadline_ends_what_took_the_place_of_an_interpreter(
    bench: benches.Bench, runtime: str, code: str
) -> None:
    """Whatever signal ends a run that is past its deadline, it has timed out."""
    context = await made(bench, runtime)
    answer = await done(bench, context, code, timeout_ms=500)
    assert (answer["end"], answer["exit_code"]) == ("timed_out", 124)


async def test_a_sandbox_that_ends_while_an_interpreter_starts(bench: benches.Bench, tmp_path: Path) -> None:
    """It is told, and not that the sandbox has no such interpreter."""
    program = tmp_path / "node"
    program.write_text("#!/bin/sh\nexec sleep 100\n")
    program.chmod(0o755)
    making = asyncio.create_task(made(bench, "node", env={"PATH": f"{tmp_path}:/usr/bin:/bin"}))
    await benches.until(lambda: bench.interpreters._boxes.get(bench.entry.text_id))
    bench.entry.state = states.SandboxState.STOPPING
    await bench.kill_all()
    with pytest.raises(errors.Conflict):
        await making


def slow_python(place: Path) -> Path:
    """Put a Python into `place` that starts when somebody makes the file that this returns."""
    gate = place / "gate"
    program = place / "python3"
    program.write_text(
        f"#!{sys.executable} -IS\nimport os, sys, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o755)
    return gate
