"""A fake server that the command line finds through TRAFORO_URL, and a way to run it within the test's process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.servers import FakeServer
from traforo import cli


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def said(self) -> str:
        return self.err.decode()


@pytest.fixture
def worker() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def control(worker: FakeServer) -> Iterator[FakeServer]:
    with FakeServer(worker) as server:
        yield server


@pytest.fixture
def traforo(
    control: FakeServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    """Run the command line against the fake server and return what came of it."""
    monkeypatch.setenv("TRAFORO_URL", control.url)
    monkeypatch.delenv("TRAFORO_TOKEN", raising=False)

    def run(*arguments: str) -> Done:
        code = cli.main(arguments)
        out, err = capfdbinary.readouterr()
        return Done(code, out, err)

    return run
