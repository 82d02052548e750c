import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools" / "async_to_sync.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("async_to_sync", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_client_for_threads_is_up_to_date() -> None:
    """It is what the tool writes; run tools/async_to_sync.py after a change."""
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "text,expected",
    [
        ("async def f() -> None:\n    await g()\n", "def f() -> None:\n    g()\n"),
        ('"""Say `async with await AsyncSandbox.create()`."""\n', '"""Say `with Sandbox.create()`."""\n'),
        ("x = [y async for y in z.aiter_raw()]\n", "x = list(z.iter_raw())\n"),
        ("from a._async import b\n", "from a._sync import b\n"),
    ],
)
def test_words_are_replaced_in_code_and_prose(tool: ModuleType, text: str, expected: str) -> None:
    """What runs and what is shown stay the same thing."""
    assert tool.converted(text, "here.py") == tool.MARK.format(source="here.py") + expected


@pytest.mark.parametrize(
    "text", ["import asyncio\n", "x = AsyncThing()\n", "# await is a word here\nawait_ = 'await'\n"]
)
def test_what_has_no_synchronous_form_is_told(tool: ModuleType, text: str) -> None:
    """With its place, before anything wrong is written."""
    with pytest.raises(ValueError, match=r"^here.py:\d+: "):
        tool.converted(text, "here.py")


def test_check_writes_nothing_and_tells(tool: ModuleType, tmp_path: Path) -> None:
    """A file that is old, missing or without a source is named; writing brings all but the last in order."""
    for name in ("_async", "_sync"):
        (tmp_path / name).mkdir()
    (tmp_path / "_async" / "a.py").write_text("async def f(): ...\n")
    (tmp_path / "_sync" / "edges.py").write_text("")
    (tmp_path / "_sync" / "gone.py").write_text("")
    stale = [tmp_path / "_sync" / "a.py", tmp_path / "_sync" / "gone.py"]
    assert tool.updated(tmp_path, write=False) == stale
    assert not stale[0].exists()
    assert tool.updated(tmp_path, write=True) == stale
    assert tool.updated(tmp_path, write=False) == stale[1:]
