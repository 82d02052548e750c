"""The Node kernel as a plain process: state, values, errors, output, interrupts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from tests.unit.worker.interpreters import talks

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no node")


@pytest.fixture(scope="module")
def node() -> Iterator[talks.Talk]:
    with talks.talk("node") as found:
        yield found


def test_state_stays(node: talks.Talk) -> None:
    """Declarations of one run are there in the next, those after an `await` too."""
    node.run("const a1 = 20; let b1 = 1; function twice(x) { return 2 * x } class K {}")
    assert node.run("b1 += 1; twice(a1) + b1").text == "42"
    node.run("const c1 = await Promise.resolve('c')")
    assert node.run("c1 + typeof K").text == "'cfunction'"
    assert node.run("require('path').join('a', 'b')").text == "'a/b'"


def test_the_last_value_is_shown(node: talks.Talk) -> None:
    """The last value is a result, an object literal too; a promise is waited for; undefined is nothing."""
    assert node.run("1; 2") == talks.Told(results=[{"text/plain": "2", "is_main": True}], exit_code=0, order=["result"])
    assert node.run("({ x: [1, null] })").text == "{ x: [ 1, null ] }"
    assert node.run("{ y: 1 }").text == "{ y: 1 }"
    for code in ("undefined", "3;", ""):
        assert node.run(code) == talks.Told(exit_code=0)
    assert node.run("(async () => { await new Promise(r => setTimeout(r, 20)); return 'late' })()").text == "'late'"


def test_what_comes_late_belongs_to_no_other_run(node: talks.Talk) -> None:
    """A value that takes its time to be shown is dropped when its run is over."""
    slow = "{ [Symbol.for('Jupyter.display')]: () => new Promise(r => setTimeout(r, 50, { 'text/html': 'late' })) }"
    assert node.run(f"display({slow}); throw new Error('x')").exit_code == 1
    assert node.run("await new Promise(r => setTimeout(r, 150)); 'own'").text == "'own'"


def test_output(node: talks.Talk) -> None:
    """Output comes in its order with results, that of processes too; errors on their own stream."""
    code = "console.log('a'); display(1); require('child_process').execSync('echo b', {stdio: 'inherit'}); console.error('e')"
    told = node.run(code)
    assert told.order[:3] == ["a\n", "result", "b\n"]
    assert told.stderr == b"e\n"
    assert node.run("console.log('x'.repeat(3_000_000))").stdout == b"x" * 3_000_000 + b"\n"
    assert node.run("process.stdout.write(Buffer.from([0, 255, 254])); undefined").stdout == b"\x00\xff\xfe"


@pytest.mark.parametrize("code", ["if (", "let 1", "await", "}"])
def test_code_that_does_not_compile(node: talks.Talk, code: str) -> None:
    """It is an error like any other, and the context stays."""
    told = node.run(code)
    assert told.error is not None
    assert (told.error["name"].endswith("Error"), told.exit_code) == (True, 1)
    assert node.run("1").text == "1"


def test_an_error_has_no_frames_of_ours(node: talks.Talk) -> None:
    """An error is told by name, message and stack, whose frames are of the code alone."""
    told = node.run("function broken() { throw new TypeError('bad') }\nbroken()")
    assert told.error is not None
    assert (told.error["name"], told.error["value"]) == ("TypeError", "bad")
    assert [line.split()[1] for line in told.error["traceback"][1:]] == [
        "broken",
        told.error["traceback"][2].split()[1],
    ]
    assert "traforo" not in "".join(told.error["traceback"])
    told = node.run("throw { code: 7 }")
    assert told.error is not None
    assert told.error["value"] == "{ code: 7 }"


def test_errors_out_of_line(node: talks.Talk) -> None:
    """What fails while the run waits fails the run; what fails later breaks nothing."""
    told = node.run("setTimeout(() => { throw new Error('late') }, 5); await new Promise(r => setTimeout(r, 5000))")
    assert told.error is not None
    assert told.error["value"] == "late"
    assert node.run(
        "setTimeout(() => { throw new Error('later') }, 5); Promise.reject(new Error('no')); 1"
    ).exit_code in {0, 1}
    assert node.run("await new Promise(r => setTimeout(r, 50)); 2").exit_code in {0, 1}
    assert node.run("2").text == "2"


@pytest.mark.parametrize("code", ["while (true) {}", "await new Promise(() => setTimeout(() => {}, 1e6))"])
def test_interrupts(node: talks.Talk, code: str) -> None:
    """SIGINT breaks loops and waits; the state stays, and an interrupt that comes too late breaks nothing."""
    run = node.begin("globalThis.before = 7; console.log('go');" + code)
    node.until(b"go\n")
    assert node.language.interrupt is not None
    node._write(node.language.interrupt(run))
    if "while" in code:
        time.sleep(0.1)  # as the worker does, which insists: Node may lose a signal while it changes its handlers
        told = node.interrupted(run)
    else:
        told = node.finish(run)
    assert (told.exit_code, told.error is not None) == (130, True)
    node._write(node.language.interrupt(run))
    assert node.run("before").text == "7"


def test_exits_end_the_run_alone(node: talks.Talk) -> None:
    """`process.exit` ends the run with its code, and the context goes on."""
    told = node.run("process.exit(3); console.log('never')")
    assert (told.exit_code, told.error, told.stdout) == (3, None, b"")
    assert node.run("4").text == "4"


def test_rich_values(node: talks.Talk) -> None:
    """Values say how they are shown, bytes as base64; `display` takes a bundle as it is."""
    told = node.run(
        "({ [Symbol.for('Jupyter.display')]() { return { 'text/html': '<b>', 'image/png': new Uint8Array([1]) } } })"
    )
    assert (told.results[0]["text/html"], told.results[0]["image/png"]) == ("<b>", "AQ==")
    told = node.run("display({ raw: true, data: { 'application/json': { a: 1 } } })")
    assert told.results == [{"application/json": {"a": 1}, "is_main": False}]
    assert (
        len(node.run("display({ raw: true, data: { 'text/html': 'y'.repeat(7e6) } })").results[0]["text/html"]) == 7e6
    )


def test_environment_and_input(node: talks.Talk) -> None:
    """Variables hold for their run; standard input is at its end."""
    assert node.run("process.env.OWN", {"OWN": "é"}).text == "'é'"
    assert node.run("process.env.OWN").text is None
    assert node.run("require('fs').readFileSync(0, 'utf8')").text == "''"


def test_large_code(node: talks.Talk) -> None:
    """Code of a megabyte arrives."""
    assert node.run("'" + "é" * 500_000 + "'.length").text == "500000"


def test_what_was_lost_is_told_again(node: talks.Talk) -> None:
    """Results and the end of the last run come again from any number on; of another run it knows nothing."""
    run = node.begin("display(1); display(2); 3")
    node.finish(run)
    node.again(run, 1)
    told = talks.Told()
    assert [type(node.answer(told)).__name__ for _ in range(3)] == ["Result", "Result", "Done"]
    node.again("0" * 26, 0)
    assert type(node.answer(told)).__name__ == "Unknown"
