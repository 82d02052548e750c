"""The examples in docstrings run as they stand."""

import ast
import asyncio
import inspect
import re
import textwrap
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import traforo.sdk
from tests.fakes.servers import FakeServer
from traforo.sdk._async import attachments as async_attachments
from traforo.sdk._async import clients as async_clients
from traforo.sdk._async import contexts as async_contexts
from traforo.sdk._async import execs as async_execs
from traforo.sdk._async import files as async_files
from traforo.sdk._async import ports as async_ports
from traforo.sdk._async import sandboxes as async_sandboxes
from traforo.sdk._async import terminals as async_terminals
from traforo.sdk._sync import attachments, clients, contexts, execs, files, ports, sandboxes, terminals

ASYNC = (
    *(async_attachments, async_clients, async_contexts, async_execs, async_files, async_ports, async_sandboxes),
    async_terminals,
)
SYNC = (attachments, clients, contexts, execs, files, ports, sandboxes, terminals)
NAMES = {name: getattr(traforo.sdk, name) for name in traforo.sdk.__all__}


def examples(modules: tuple[ModuleType, ...]) -> list[Any]:
    return [example for module in modules for example in examples_of(module)]


def examples_of(module: ModuleType) -> Iterator[Any]:
    short = module.__name__.removeprefix("traforo.sdk.")
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = re.findall(r"```python\n(.*?)```", ast.get_docstring(node) or "", re.DOTALL)
            for number, code in enumerate(found):
                yield pytest.param(textwrap.dedent(code), id=f"{short}.{node.name}.{number}")


@pytest.mark.parametrize("code", examples(SYNC))
def test_sync_example(code: str, control: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It runs against a server at TRAFORO_URL and leaves no sandbox behind."""
    monkeypatch.setenv("TRAFORO_URL", control.url)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), dict(NAMES))
    assert control.worker is not None
    assert {sandbox.state for sandbox in control.worker.sandboxes.values()} <= {"stopped"}


@pytest.mark.parametrize("code", examples(ASYNC))
def test_async_example(code: str, control: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same, with the example as the body of a coroutine."""
    monkeypatch.setenv("TRAFORO_URL", control.url)
    monkeypatch.chdir(tmp_path)
    coroutine: Coroutine[Any, Any, None] = eval(
        compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), dict(NAMES)
    )
    asyncio.run(coroutine)
    assert control.worker is not None
    assert {sandbox.state for sandbox in control.worker.sandboxes.values()} <= {"stopped"}


GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "python-sdk.md"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL))
def test_guide_example(code: str, control: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The programs in the guide run as they stand."""
    monkeypatch.setenv("TRAFORO_URL", control.url)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {})
    assert control.worker is not None
    assert {sandbox.state for sandbox in control.worker.sandboxes.values()} == {"stopped"}


def test_the_main_methods_have_examples() -> None:
    """Whoever looks up how to do a thing finds it done."""
    found = {param.id.split(".", 1)[1].rsplit(".", 1)[0] for param in examples(SYNC)}
    wanted = {"clients.Client", "execs.Exec", "files.Files", "sandboxes.Sandbox"}
    wanted |= {f"sandboxes.{name}" for name in ("create", "connect", "list", "exec", "start", "run_code")}
    wanted |= {f"sandboxes.{name}" for name in ("metrics", "events", "logs")} | {"contexts.Context", "contexts.run"}
    wanted |= {"attachments.Attachment", "terminals.Terminals", "ports.Ports", "files.watch", "execs.output"} | {
        "files.upload"
    }
    assert wanted <= found
