"""Code contexts with the libraries that code in sandboxes is written for, as those who made them meant them to be used.

The image that has them is `host`, or what `TRAFORO_TEST_LIBRARIES_IMAGE` names: `tools/make-python-image` makes one.
"""

from __future__ import annotations

import base64
import concurrent.futures
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults import planes
from tests.integration.worker.test_real_contexts import Sandbox

IMAGE = os.environ.get("TRAFORO_TEST_LIBRARIES_IMAGE", "host")
LIBRARIES = ("numpy", "pandas", "matplotlib", "IPython", "sympy")
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # a whole PNG
)
Answer = dict[str, Any]
Run = Callable[[str], Answer]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One for all tests, each of which has a context of its own."""
    if os.geteuid() != 0:
        pytest.skip("a spawner of our own can only be found again by root")
    with planes.lent() as fleet:
        made = Sandbox(fleet, image=IMAGE, memory_mib=1024, disk_mib=256, pids=200)
        try:
            yield made
        finally:
            made.call("DELETE", "", 204)
            made.http.close()


@pytest.fixture(scope="module")
def found(sandbox: Sandbox) -> list[str]:
    """Those libraries that the image has."""
    context = sandbox.context()
    code = f"import importlib.util\nfor name in {LIBRARIES}:\n    if importlib.util.find_spec(name): print(name)"
    names: str = sandbox.run(context, code)["stdout"]
    sandbox.call("DELETE", f"/contexts/{context}", 204)
    return names.split()


@pytest.fixture
def libraries(sandbox: Sandbox, found: list[str]) -> Iterator[Callable[..., Run]]:
    """Make a context with some libraries, and give what runs code in it."""
    made: list[str] = []

    def having(*names: str) -> Run:
        missing = [name for name in names if name not in found]
        if missing:
            pytest.skip(f"the image {IMAGE!r} has no {', '.join(missing)}")
        context = sandbox.context(env={"MPLCONFIGDIR": "/tmp/matplotlib"})
        made.append(context)
        return lambda code: sandbox.run(context, code, timeout_ms=50_000)

    yield having
    for context in made:
        sandbox.call("DELETE", f"/contexts/{context}", 204)


def kinds(answer: Answer) -> list[set[str]]:
    """Return which forms each result of a run has."""
    assert answer["error"] is None, answer["error"]
    return [set(result) - {"is_main"} for result in answer["results"]]


def size(result: Answer) -> tuple[int, int]:
    """Return width and height of a picture, which has to be a PNG."""
    data = base64.b64decode(result["image/png"])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


# ------------------------------------------------------------------------------------------------- numbers and tables


def test_arrays(libraries: Callable[..., Run]) -> None:
    """An array is its text; what numpy warns of is told with the line that did it."""
    run = libraries("numpy")
    assert run("import numpy as np; np.arange(6).reshape(2, 3)")["results"] == [
        {"text/plain": "array([[0, 1, 2],\n       [3, 4, 5]])", "is_main": True}
    ]
    answer = run("# nothing\nnp.arange(1) / 0")
    assert answer["stderr"].startswith("<run 2>:2: RuntimeWarning: invalid value")
    assert answer["stderr"].endswith("\n  np.arange(1) / 0\n")


def test_errors_of_libraries(libraries: Callable[..., Run]) -> None:
    """A traceback begins in the code of the run that it shows, goes on in the library, and names nobody else."""
    run = libraries("numpy")
    run("import numpy as np\ndef inverse(a):\n    return np.linalg.inv(a)")
    error = run("inverse(np.zeros((2, 2)))")["error"]
    assert (error["name"], error["value"]) == ("LinAlgError", "Singular matrix")
    frames = [line for line in error["traceback"] if line.startswith("  File ")]
    assert frames[:2] == ['  File "<run 2>", line 1, in <module>', '  File "<run 1>", line 3, in inverse']
    assert len(frames) > 2
    assert not [frame for frame in frames if "<traforo>" in frame]
    assert "    return np.linalg.inv(a)" in error["traceback"]
    assert error["traceback"][-1] == "numpy.linalg.LinAlgError: Singular matrix"


def test_two_contexts_import_at_once(sandbox: Sandbox, found: list[str]) -> None:
    """Imports of a large library do not meet: each context has its own."""
    if "numpy" not in found:
        pytest.skip(f"the image {IMAGE!r} has no numpy")
    contexts = [sandbox.context() for _ in range(2)]
    code = "import numpy as np\nnp.random.seed(0); own = np.random.rand(100, 100); float((own @ own.T).trace()) > 0"
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda context: sandbox.run(context, code), contexts))
    assert [answer["results"][0]["text/plain"] for answer in answers] == ["True", "True"]
    for context in contexts:
        sandbox.call("DELETE", f"/contexts/{context}", 204)


def test_tables(libraries: Callable[..., Run]) -> None:
    """A table comes as HTML and as text, as the last value of a run and by `display`; a column as text."""
    run = libraries("pandas")
    answer = run("import pandas as pd; table = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}); table")
    assert kinds(answer) == [{"text/html", "text/plain"}]
    assert answer["results"][0]["text/plain"] == "   a  b\n0  1  x\n1  2  y"
    assert "<td>x</td>" in answer["results"][0]["text/html"]
    assert kinds(run("display(table); table['a']")) == [{"text/html", "text/plain"}, {"text/plain"}]
    assert run("table['missing']")["error"]["name"] == "KeyError"
    assert kinds(run("table")) == [{"text/html", "text/plain"}]


def test_formulas(libraries: Callable[..., Run]) -> None:
    """A formula comes as LaTeX and as text."""
    run = libraries("sympy")
    answer = run("import sympy; x = sympy.symbols('x'); sympy.Integral(sympy.sqrt(1 / x), x)")
    assert answer["results"] == [
        {
            "text/latex": r"$\displaystyle \int \sqrt{\frac{1}{x}}\, dx$",
            "text/plain": "Integral(sqrt(1/x), x)",
            "is_main": True,
        }
    ]


# ------------------------------------------------------------------------------------------------------------ pictures


def test_a_figure_is_shown_at_the_end_of_its_run(libraries: Callable[..., Run]) -> None:
    """Once, behind the value of the run, and not again in the next one."""
    run = libraries("matplotlib")
    answer = run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])")
    assert kinds(answer) == [{"text/plain"}, {"image/png", "text/plain"}]
    assert [result["is_main"] for result in answer["results"]] == [True, False]
    assert min(size(answer["results"][1])) > 100
    assert kinds(run("1")) == [{"text/plain"}]
    assert kinds(run("plt.plot([1]); plt.figure(); plt.plot([2]);")) == [{"image/png", "text/plain"}] * 2


def test_a_figure_is_shown_where_it_is_asked_for(libraries: Callable[..., Run]) -> None:
    """Among what the code shows before and after, each of several, and not again at the end."""
    run = libraries("matplotlib")
    code = (
        "import matplotlib.pyplot as plt\ndisplay('before')\n"
        "for n in (1, 2):\n    plt.figure(figsize=(n, 1), dpi=100)\n    plt.plot([n])\n    plt.show()\ndisplay('after')"
    )
    answer = run(code)
    assert kinds(answer) == [{"text/plain"}, *([{"image/png", "text/plain"}] * 2), {"text/plain"}]
    assert size(answer["results"][1]) != size(answer["results"][2])


def test_a_figure_of_its_own(libraries: Callable[..., Run]) -> None:
    """One that pyplot does not know is shown as the value that it is."""
    run = libraries("matplotlib")
    code = "from matplotlib.figure import Figure\nown = Figure()\nown.add_subplot().plot([1, 2])\nown"
    answer = run(code)
    assert kinds(answer) == [{"image/png", "text/plain"}]
    assert answer["results"][0]["is_main"]


def test_the_backend_of_notebooks(libraries: Callable[..., Run]) -> None:
    """What an image made for notebooks sets: each figure once as well."""
    run = libraries("matplotlib", "IPython")
    run("import os; os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'")
    assert kinds(run("import matplotlib.pyplot as plt; plt.plot([1]); plt.show()")) == [{"image/png", "text/plain"}]
    assert kinds(run("plt.plot([1]);")) == [{"image/png", "text/plain"}]


def test_a_child_shows_nothing(libraries: Callable[..., Run]) -> None:
    """A process that the code forks leaves the figures to its parent."""
    run = libraries("matplotlib")
    code = (
        "import os, matplotlib.pyplot as plt\nplt.plot([1])\npid = os.fork()\n"
        "if not pid:\n    plt.show(); os._exit(0)\nos.waitpid(pid, 0)[1]"
    )
    answer = run(code)
    assert kinds(answer) == [{"text/plain"}, {"image/png", "text/plain"}]
    assert answer["results"][0]["text/plain"] == "0"


def test_a_figure_belongs_to_the_run_that_made_it(libraries: Callable[..., Run]) -> None:
    """However that run ended, the next one shows its own and nothing else."""
    run = libraries("matplotlib")
    assert run("import matplotlib.pyplot as plt; plt.plot([1, 2]); 1 / 0")["exit_code"] == 1
    assert kinds(run("print('next')")) == []
    run("plt.plot([1]); exit(0)")
    assert kinds(run("print('next')")) == []


def test_a_figure_that_cannot_be_drawn(libraries: Callable[..., Run]) -> None:
    """The run that made it fails, with its own frames and the library's alone; those after it do not."""
    run = libraries("matplotlib")
    error = run("import matplotlib.pyplot as plt\nplt.title(r'$\\bad{$')\nplt.show()")["error"]
    assert error["name"] == "ValueError"
    assert not [line for line in error["traceback"] if "<traforo>" in line]
    assert kinds(run("print('next')")) == []


# ------------------------------------------------------------------------------------------------------------- IPython


@pytest.mark.parametrize(
    "code, kind, data",
    [
        ("HTML('<b>x</b>')", "text/html", "<b>x</b>"),
        ("Markdown('*x*')", "text/markdown", "*x*"),
        ("Latex('$x$')", "text/latex", "$x$"),
        ("JSON({'a': [1]})", "application/json", {"a": [1]}),
        ("Javascript('1')", "application/javascript", "1"),
        (
            "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
            "image/svg+xml",
            '<svg xmlns="http://www.w3.org/2000/svg"/>',
        ),
        (f"Image(base64.b64decode('{PIXEL}'))", "image/png", PIXEL),
    ],
)
def test_rich_values(libraries: Callable[..., Run], code: str, kind: str, data: object) -> None:
    """What IPython wraps comes in its form, as the last value, by our `display` and by theirs."""
    run = libraries("IPython")
    run("import base64, IPython.display\nfrom IPython.display import *")
    for shown, main in ((code, True), (f"display({code})", False), (f"IPython.display.display({code})", False)):
        (result,) = run(shown)["results"]
        assert (result["is_main"], set(result)) == (main, {kind, "text/plain", "is_main"})
        # Older ones end a picture with a newline.
        assert (result[kind].strip() if isinstance(data, str) else result[kind]) == data


def test_display(libraries: Callable[..., Run]) -> None:
    """Several values, and forms that the code has made itself."""
    run = libraries("IPython")
    run("from IPython.display import display, display_html, HTML")
    assert kinds(run("display(HTML('x'), 2)")) == [{"text/html", "text/plain"}, {"text/plain"}]
    raw = run("display({'text/plain': 'p', 'text/html': '<i>p</i>'}, raw=True)")["results"]
    assert raw == [{"text/plain": "p", "text/html": "<i>p</i>", "is_main": False}]
    assert kinds(run("display_html('<b>x</b>', raw=True)")) == [{"text/html"}]


def test_values_that_ask_for_ipython(libraries: Callable[..., Run]) -> None:
    """Its protocols hold where it is there: forms by MIME type, and text by its printer."""
    run = libraries("IPython")
    run("import IPython.display")
    pretty = "class P:\n    def _repr_pretty_(self, printer, cycle): printer.text('pretty')\nP()"
    assert run(pretty)["results"][0]["text/plain"] == "pretty"
    bundle = (
        "class B:\n    def _repr_mimebundle_(self, **options): return {'application/vnd.x+json': {'a': 1}}, {}\nB()"
    )
    assert run(bundle)["results"][0]["application/vnd.x+json"] == {"a": 1}


def test_values_that_show_themselves(libraries: Callable[..., Run]) -> None:
    """One that does so is not shown in another way as well."""
    run = libraries("IPython")
    code = "import IPython.display\nclass Own:\n    def _ipython_display_(self): print('own')\nOwn()"
    answer = run(code)
    assert (answer["stdout"], answer["results"]) == ("own\n", [])


def test_a_form_that_cannot_be_made(libraries: Callable[..., Run]) -> None:
    """It is told once, on standard error, and the other forms are there."""
    run = libraries("IPython")
    code = "import IPython.display\nclass Bad:\n    def _repr_html_(self): raise ValueError('bad')\n    def __repr__(self): return 'Bad'\nBad()"
    answer = run(code)
    assert (answer["stdout"], answer["stderr"]) == ("", "ValueError: bad\n")
    assert answer["results"] == [{"text/plain": "Bad", "is_main": True}]
