"""Fakes for tests of the SDK."""

from collections.abc import Iterator

import pytest

from tests.fakes.servers import FakeServer


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAFORO_URL", raising=False)
    monkeypatch.delenv("TRAFORO_TOKEN", raising=False)


@pytest.fixture
def worker() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def control(worker: FakeServer) -> Iterator[FakeServer]:
    with FakeServer(worker) as server:
        yield server


@pytest.fixture
def closed_worker() -> Iterator[FakeServer]:
    """A worker in `prod` mode: it asks for the token `tok` of its sandboxes, or the client's `client`."""
    with FakeServer(token="tok") as server:
        yield server


@pytest.fixture
def closed_control(closed_worker: FakeServer) -> Iterator[FakeServer]:
    with FakeServer(closed_worker) as server:
        yield server
