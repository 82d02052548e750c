import socket

import pytest

from tests.fakes.servers import FakeServer
from traforo.cli import probes
from traforo.domain import ids


def test_a_server_is_healthy(worker: FakeServer) -> None:
    """When it says so; nobody is not."""
    assert probes.healthy(worker.url)
    assert not probes.healthy("http://127.0.0.1:1")


def test_what_is_no_server_is_not_healthy() -> None:
    """Whatever else listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        assert not probes.healthy(f"http://127.0.0.1:{port}")


def test_a_worker_is_registered_when_its_ids_lead_somewhere(worker: FakeServer, control: FakeServer) -> None:
    """Asked with an id of that worker which no sandbox has."""
    assert probes.registered(control.url, "Some-Host")
    assert not probes.registered(worker.url, "Some-Host")
    asked = control.requests[-1].path.removeprefix("/sandboxes/")
    assert ids.parse_sandbox_id(asked).worker == ids.worker_hash("some-host")


def test_an_address_that_is_taken_is_told() -> None:
    """With the words of the system."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            probes.require_free("127.0.0.1", port)
    probes.require_free("127.0.0.1", port)


def test_free_ports_can_be_bound() -> None:
    """They differ, and nobody listens on them."""
    ports = probes.free_ports("127.0.0.1", 3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass
