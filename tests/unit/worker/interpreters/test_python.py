"""The Python kernel as a plain process: state, values, errors, output, interrupts, under every Python there is."""

from __future__ import annotations

import base64
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.interpreters import talks
from traforo.worker.interpreters import languages, marks


@functools.cache
def pythons() -> list[str]:
    """Return every Python from 3.8 on: of the PATH, and those that TRAFORO_TEST_PYTHONS names (`:` between them)."""
    named = os.environ.get("TRAFORO_TEST_PYTHONS", "").split(":")
    places = [sys.executable, shutil.which("python3"), *(shutil.which(f"python3.{minor}") for minor in range(8, 20))]
    found: dict[str, str] = {}
    for place in [*places, *named]:
        if place:
            told = subprocess.run(
                [place, "-c", "import sys; print(sys.version_info >= (3, 8) and sys.version)"],
                capture_output=True,
                text=True,
                check=False,
            )
            if told.returncode == 0 and told.stdout.strip() != "False":
                found.setdefault(told.stdout, place)
    return list(found.values())


@pytest.fixture(scope="module", params=pythons())
def python(request: pytest.FixtureRequest) -> Iterator[talks.Talk]:
    with talks.talk("python", request.param) as found:
        yield found


@pytest.fixture
def fresh() -> Iterator[talks.Talk]:
    with talks.talk("python") as found:
        yield found


def test_state_stays(python: talks.Talk) -> None:
    """Names, functions and imports of one run are there in the next; code is `__main__`."""
    python.run("import math\nx = 20\ndef double(y): return y * 2")
    assert python.run("double(x) + int(math.sqrt(4))").text == "42"
    assert python.run("__name__, double.__module__").text == "('__main__', '__main__')"
    assert python.run("_").text == "('__main__', '__main__')"


def test_the_last_expression_alone_is_shown(python: talks.Talk) -> None:
    """The value of the last expression is a result, unless it is None or a semicolon silences it."""
    assert python.run("1\n2\n3").text == "3"
    assert python.run("None").text is None
    assert python.run("3;").text is None
    assert python.run("y = 3").text is None
    assert python.run("").exit_code == 0
    assert python.run("# nothing").text is None


def test_output_and_results_keep_their_order(python: talks.Talk) -> None:
    """What is printed before a value is displayed comes before it; so does output of processes."""
    told = python.run(
        "import os, sys\nprint('a')\ndisplay(1)\nos.system('echo b')\ndisplay(2)\nsys.stdout.write('c')\n3"
    )
    assert told.order == ["a\n", "result", "b\n", "result", "c", "result"]
    assert [result["is_main"] for result in told.results] == [False, False, True]


def test_an_error_has_no_frames_of_ours(python: talks.Talk) -> None:
    """An error is told by name, value and traceback with its source lines; what was done before stays."""
    told = python.run("z = 1\ndef f():\n    return 1 / 0\nf()")
    assert told.error is not None
    assert (told.error["name"], told.error["value"], told.exit_code) == ("ZeroDivisionError", "division by zero", 1)
    text = "\n".join(told.error["traceback"])
    assert "traforo" not in text
    assert "    return 1 / 0" in text
    assert "line 4, in <module>" in text
    assert told.stderr == b""
    assert python.run("z").text == "1"


@pytest.mark.parametrize("code", ["if", "x = (", "\0", "return 1", "  y"])
def test_code_that_does_not_compile(python: talks.Talk, code: str) -> None:
    """It is an error like any other, and the context stays."""
    told = python.run(code)
    assert told.exit_code in {0, 1}
    assert (told.error is None) == (told.exit_code == 0)
    assert told.error is None or told.error["name"] in {"SyntaxError", "IndentationError", "ValueError"}
    assert python.run("1").text == "1"


def test_await(python: talks.Talk) -> None:
    """`await` works at the top, in the last expression too; tasks go on in later runs."""
    python.run("import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 'done'\ntask = None")
    assert python.run("task = asyncio.ensure_future(later())\nawait asyncio.sleep(0)\nawait later()").text == "'done'"
    assert python.run("await task").text == "'done'"
    assert python.run("asyncio.run(later())").text == "'done'"
    assert python.run("async for_ = 1").error is not None


def test_futures_of_the_compiler_stay(python: talks.Talk) -> None:
    """What a run asks of the compiler holds for the runs after it."""
    with talks.talk("python", str(python.process.args[0])) as own:  # type: ignore[index]
        own.run("from __future__ import annotations")
        assert own.run("def g(a: nothing_like_that): pass").error is None


def test_input_is_at_its_end(python: talks.Talk) -> None:
    """Code that asks for input gets its end, as do its processes; the requests are not theirs."""
    told = python.run("input()")
    assert told.error is not None
    assert told.error["name"] == "EOFError"
    assert python.run("import sys, subprocess\nsys.stdin.read(), subprocess.run(['cat']).returncode").text == "('', 0)"


@pytest.mark.parametrize(
    "code, status, said",
    [("exit()", 0, b""), ("sys.exit(3)", 3, b""), ("quit(300)", 44, b""), ("sys.exit('bye')", 1, b"bye\n")],
)
def test_exits_end_the_run_alone(python: talks.Talk, code: str, status: int, said: bytes) -> None:
    """`sys.exit` ends the run with its code, and the context goes on."""
    told = python.run("import sys\n" + code)
    assert (status, said) == (told.exit_code, told.stderr)
    assert (told.error is None) == (status == 0)
    assert python.run("1").text == "1"


def test_text_that_is_not_unicode(python: talks.Talk) -> None:
    """Text comes as UTF-8, stray bytes as they are, other surrogates as escapes; results are always text."""
    assert python.run("print('é😀')").stdout == "é😀\n".encode()
    assert python.run("import os; print(os.fsdecode(b'\\xff\\xfe'))").stdout == b"\xff\xfe\n"
    assert python.run("print('\\ud800')").stdout == b"\\ud800\n"
    assert python.run("os.write(1, bytes(range(256))); None").stdout == bytes(range(256))
    assert python.run("'\\ud800'").text == "'\\ud800'"
    assert python.run("class R:\n    def __repr__(self): return 'a\\ud800'\nR()").text == "a\\ud800"


def test_environment_of_a_run(python: talks.Talk) -> None:
    """Variables hold for their run and for its processes, and are as before afterwards."""
    python.run("import os; os.environ['KEPT'] = 'old'")
    told = python.run("os.system('echo $KEPT $OWN'); os.environ['OWN']", {"KEPT": "new", "OWN": "é"})
    assert (told.stdout, told.text) == ("new é\n".encode(), "'é'")
    assert python.run("os.environ['KEPT'], 'OWN' in os.environ").text == "('old', False)"


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time; time.sleep(100)", "input_ = [i for i in iter(int, 1)]"]
)
def test_interrupts(python: talks.Talk, code: str) -> None:
    """SIGINT breaks loops and sleeps with a KeyboardInterrupt; the state stays."""
    run = python.begin("before = 7\nprint('go')\n" + code)
    python.until(b"go\n")
    told = python.interrupted(run)
    assert told.error is not None
    assert (told.error["name"], told.exit_code) == ("KeyboardInterrupt", 130)
    assert "traforo" not in "".join(told.error["traceback"])
    assert python.run("before").text == "7"


def test_interrupts_between_runs_do_nothing(python: talks.Talk) -> None:
    """An interrupt that comes too late breaks nothing."""
    for _ in range(20):
        python.interrupt()
        assert python.run("1").text == "1"


def test_a_handler_of_the_code_holds_for_its_run(python: talks.Talk) -> None:
    """Code may catch SIGINT itself; the next run can be interrupted all the same."""
    code = "import signal, time\ngot = []\nsignal.signal(2, lambda *a: got.append(a[0]))\nprint('go')\n"
    code += "while not got: time.sleep(0.01)\n[int(number) for number in got]"
    run = python.begin(code)
    python.until(b"go\n")
    python.interrupt()
    assert python.finish(run).text == "[2]"
    run = python.begin("print('go')\nwhile True: pass")
    python.until(b"go\n")
    python.interrupt()
    assert python.finish(run).exit_code == 130


def test_rich_values(python: talks.Talk) -> None:
    """Values are shown in the forms that their classes give: text, base64, JSON."""
    told = python.run(
        "class Rich:\n"
        "    def _repr_html_(self): return '<b>é</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def _repr_json_(self): return {'a': [1]}\n"
        "    def _repr_svg_(self): return None\n"
        "    def _repr_latex_(self): raise ValueError('no')\n"
        "    def __repr__(self): return 'Rich()'\n"
        "Rich()"
    )
    assert told.results == [
        {
            "text/html": "<b>é</b>",
            "image/png": base64.b64encode(b"\x89PNG").decode(),
            "application/json": {"a": [1]},
            "text/plain": "Rich()",
            "is_main": True,
        }
    ]
    assert b"ValueError: no" in told.stderr
    assert list(python.run("Rich").results[0]) == ["text/plain", "is_main"]


def test_bundles(python: talks.Talk) -> None:
    """`_repr_mimebundle_` gives all forms at once, with metadata or without; `display` takes one as it is."""
    told = python.run(
        "class Bundle:\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/markdown': '*x*'}, {'m': 1}\n"
        "class Any:\n"
        "    def __getattr__(self, name): return lambda *a, **o: 'whatever'\n"
        "display(Bundle(), {'text/plain': 'p', 'image/svg+xml': '<svg/>'}, raw=True)\n"
        "display(Any())"
    )
    assert told.error is None
    assert told.results[0]["text/markdown"] == "*x*"
    assert told.results[1] == {"text/plain": "p", "image/svg+xml": "<svg/>", "is_main": False}
    assert list(told.results[2]) == ["text/plain", "is_main"]


def test_an_error_while_showing(python: talks.Talk) -> None:
    """A `__repr__` that fails is the run's error, from the code's own frame on."""
    told = python.run("class Bad:\n    def __repr__(self): return 1 / 0\nBad()")
    assert told.error is not None
    assert told.error["name"] == "ZeroDivisionError"
    assert "traforo" not in "".join(told.error["traceback"])


def test_values_that_resist(python: talks.Talk) -> None:
    """Whatever happens while a value is asked for its forms, it is shown, and no frame of ours with it."""
    told = python.run("class B:\n    def __getattr__(self, name): raise RuntimeError(name)\nB()")
    assert (told.exit_code, told.error, len(told.results)) == (0, None, 1)
    told = python.run("class R:\n    def __repr__(self): return 1 / 0\ndef f(): display(R())\nf()")
    assert told.error is not None
    text = "\n".join(told.error["traceback"])
    assert "traforo" not in text
    assert "in f" in text
    assert "in __repr__" in text


def test_values_that_show_themselves(python: talks.Talk) -> None:
    """One that does so is shown in no other way, unless it gives up."""
    told = python.run("class Own:\n    def _ipython_display_(self): print('own')\nOwn()")
    assert (told.stdout, told.results) == (b"own\n", [])
    told = python.run(
        "class No:\n    def _ipython_display_(self): raise NotImplementedError\n    def __repr__(self): return 'no'\nNo()"
    )
    assert told.text == "no"


def test_display_takes_options(python: talks.Talk) -> None:
    """Some forms alone; and a handle, by which more is shown behind what was."""
    code = "class F:\n    def _repr_html_(self): return 'h'\n    def __repr__(self): return 't'\n"
    told = python.run(code + "display(F(), include=['text/html'])\ndisplay(F(), exclude=['text/html'])")
    assert told.results == [{"text/html": "h", "is_main": False}, {"text/plain": "t", "is_main": False}]
    told = python.run("h = display(1, display_id=True)\nh.update(2)\nisinstance(h.display_id, str)")
    assert [result["text/plain"] for result in told.results] == ["1", "2", "True"]


def test_large_results_and_many(python: talks.Talk) -> None:
    """A result may be megabytes; text is cut at a limit, and beyond a number of results there are no more."""
    assert python.run("'x' * 3_000_000").text == "'" + "x" * (1024 * 1024 - 1) + "…"
    told = python.run("display({'text/html': 'y' * 7_000_000, 'text/plain': ''}, raw=True)")
    assert len(told.results[0]["text/html"]) == 7_000_000
    told = python.run("display({'text/html': 'y' * 9_000_000}, raw=True)")
    assert "more than" in told.results[0]["text/plain"]
    told = python.run("for i in range(1500): display(i)")
    assert len(told.results) == 1001
    assert b"only the first 1000" in told.stderr


def test_huge_output(python: talks.Talk) -> None:
    """Output of any size comes whole, of the code and of its processes."""
    told = python.run(
        "import subprocess\nprint('a' * 5_000_000)\nsubprocess.run(['head', '-c', '5000000', '/dev/zero'])"
    )
    assert told.stdout == b"a" * 5_000_000 + b"\n" + bytes(5_000_000)


def test_forks_end_where_the_run_ends(python: talks.Talk) -> None:
    """A child that the code forked and forgot tells nothing of its own and does not serve requests."""
    told = python.run("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('parent' if pid else 'child')")
    assert sorted(told.stdout.split()) == [b"child", b"parent"]
    assert told.exit_code == 0
    assert python.run("1").text == "1"
    assert python.run(
        "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: r = p.map(abs, [-1, 2])\nr"
    ).text


def test_sources_can_be_inspected(python: talks.Talk) -> None:
    """`inspect` finds the source of functions of earlier runs, also when it is imported later."""
    with talks.talk("python", str(python.process.args[0])) as own:  # type: ignore[index]
        own.run("def tool(a):\n    return a + 1")
        text = own.run("import inspect\ninspect.getsource(tool).split()").text
        assert text == "['def', 'tool(a):', 'return', 'a', '+', '1']"
        assert own.run("def other(): pass\ninspect.getsource(other).split()").text == "['def', 'other():', 'pass']"


def test_packages_are_found_when_they_are_missed(tmp_path: Path) -> None:
    """What `site` adds comes late, for it takes long, but nothing that the code can see tells so."""
    program = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable  # a venv has no user's packages
    packages = subprocess.run(
        [program, "-c", "import site; print(site.getusersitepackages())"],
        env={"PYTHONUSERBASE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(packages).mkdir(parents=True)
    (Path(packages) / "missed.py").write_text("value = 42\n")
    with talks.talk("python", program, PYTHONUSERBASE=str(tmp_path)) as fresh:
        assert fresh.run("import sys\n'si' + 'te' in sys.modules").text == "False"
        assert fresh.run("'si' + 'te' in sys.modules").text == "True"
        assert fresh.run("import missed; missed.value").text == "42"
    for code, expected in [
        ("import missed; missed.value", "42"),
        (f"import sys; {packages!r} in sys.path", "True"),
        ("try:\n    import nowhere\nexcept ImportError as error:\n    print(error.name)", None),
        ("import site; site.ENABLE_USER_SITE", "True"),
        ("exit(0)", None),
    ]:
        with talks.talk("python", program, PYTHONUSERBASE=str(tmp_path)) as fresh:
            told = fresh.run(code)
            assert (told.text if expected else None) == expected
            assert told.error is None


def test_names_are_those_of_a_prompt(fresh: talks.Talk) -> None:
    """Nothing of the kernel is in `__main__`, in `sys.argv` or in the loaded modules' names that code would meet."""
    told = fresh.run("sorted(name for name in globals() if not name.startswith('__'))")
    assert told.text == "[]"
    assert fresh.run("import sys; sys.argv, sys.path[0]").text == "([''], '')"


def test_a_start_imports_nothing_slow(fresh: talks.Talk) -> None:
    """The kernel imports a few modules that are built in, and none that costs milliseconds before it is needed."""
    bare = subprocess.run(
        ["python3", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/tmp"},
    )
    told = fresh.run(f"import sys; [m for m in sys.modules if m not in {bare.stdout.decode().split()}]")
    assert told.text == "['_ast']"


@pytest.mark.parametrize(
    "code, status",
    [
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
    ],
)
def test_the_end_of_the_process(fresh: talks.Talk, code: str, status: int) -> None:
    """Code that ends its interpreter ends it really; what it printed is there."""
    run = fresh.begin("print('last', flush=True)\n" + code)
    with pytest.raises(EOFError) as caught:
        fresh.finish(run)
    assert (status,) == caught.value.args


def test_threads_that_print_disturb_no_answer(fresh: talks.Talk) -> None:
    """Results are whole while threads and processes write at the same time."""
    fresh.run(
        "import threading, subprocess, time\nstop = False\n"
        "def noise():\n    while not stop: print('n' * 50)\n"
        "for _ in range(3): threading.Thread(target=noise, daemon=True).start()\n"
        "p = subprocess.Popen('while :; do echo mmmmmmmmm; done', shell=True)"
    )
    for _ in range(5):
        told = fresh.run("display({'text/html': 'y' * 100_000}, raw=True)")
        assert [result["text/html"] for result in told.results] == ["y" * 100_000]
    assert fresh.run("stop = True; p.kill(); 5").text == "5"


def test_two_contexts_differ() -> None:
    """Each context has random numbers of its own."""
    code = "import random, uuid, secrets\nrandom.random(), uuid.uuid4(), secrets.token_hex(8), hash('a string')"
    with talks.talk("python") as one, talks.talk("python") as other:
        assert one.run(code).text != other.run(code).text


def test_what_was_lost_is_told_again(fresh: talks.Talk) -> None:
    """Results and the end of the last run come again from any number on; of another run it knows nothing."""
    run = fresh.begin("display(1)\ndisplay(2)\n3")
    fresh.finish(run)
    fresh.again(run, 1)
    told = talks.Told()
    found = [fresh.answer(told) for _ in range(3)]
    assert [type(item).__name__ for item in found] == ["Result", "Result", "Done"]
    assert [item.number for item in found[:2]] == [1, 2]  # type: ignore[union-attr]
    fresh.again("0" * 26, 0)
    assert "Unknown" in str(fresh.answer(told))


def test_a_request_that_was_never_finished(fresh: talks.Talk) -> None:
    """What a worker left unfinished when it died does not become part of the next request."""
    long = list(languages.load()["python"].run("0" * 26, b"x" * 20_000, {}))
    fresh._write(iter(long[:2]))
    assert fresh.run("6 * 7").text == "42"


@pytest.fixture(scope="module")
def shared() -> Iterator[talks.Talk]:
    with talks.talk("python") as found:
        yield found


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200) | st.text(alphabet="()[]{}:=\n '\"\\#@é\0;", max_size=40))
def test_any_code_gives_an_end(shared: talks.Talk, text: str) -> None:
    """Whatever the text, the run has an end and the context goes on."""
    assert shared.run(text.encode("utf-8", "replace")).exit_code in {0, 1}


def test_the_kernel_is_small() -> None:
    """What is written into the pipe at a start fits into it at once."""
    data = b"".join(languages.load()["python"].first(marks.nonce()))
    assert len(data) < 64 * 1024
