import json
import subprocess
import sys

import pytest

import traforo.sdk
from traforo import sdk

HEAVY = ("httpx2", "asyncio", "cyclopts", "rich", "ssl", "email", "http.client")
SERVER = (
    *("traforo.domain", "traforo.api", "traforo.worker", "traforo.control", "traforo.settings", "traforo.cli"),
    *("fastapi", "pydantic", "sqlalchemy", "structlog", "uvicorn", "msgspec", "ulid", "prometheus_client"),
)


def loaded_by(code: str) -> set[str]:
    """Run code in a new interpreter and return the modules that it loaded."""
    argv = [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"]
    out = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    return set(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize("code", ["import traforo", "import traforo.sdk", "import traforo.sdk.errors"])
def test_importing_the_package_is_light(code: str) -> None:
    """A program that uses no client yet does not pay for one."""
    assert loaded_by(code) & {*HEAVY, *SERVER} == set()


@pytest.mark.parametrize("name", ["Sandbox", "AsyncSandbox"])
def test_a_client_needs_nothing_of_the_server(name: str) -> None:
    """`pip install traforo` is enough for it."""
    assert loaded_by(f"from traforo import {name}; {name}.create") & set(SERVER) == set()


def test_the_client_for_threads_needs_no_event_loop() -> None:
    """Each client loads its own half."""
    loaded = loaded_by("from traforo import Sandbox")
    assert {name for name in loaded if name.startswith("traforo.sdk._async")} == set()
    assert "asyncio" not in loaded


@pytest.mark.parametrize("name", sdk.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    """The names that the package promises are there."""
    assert getattr(sdk, name).__doc__
    assert name in dir(sdk)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="Sandwich"):
        _ = traforo.sdk.Sandwich
