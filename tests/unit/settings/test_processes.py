"""Rules between settings of one process."""

import subprocess
import sys
from pathlib import Path

import pytest

from traforo.settings import control, groups, worker

SECRET = "s" * 32


def prod() -> groups.AuthSettings:
    return groups.AuthSettings.model_validate({"jwt_secret": SECRET})


@pytest.mark.parametrize(
    "listen, expected",
    [("127.0.0.1:0", "http://127.0.0.1:7"), (":0", "http://host-1:7"), ("[::1]:0", "http://[::1]:7")],
)
def test_base_url_follows_the_port_that_was_bound(listen: str, expected: str) -> None:
    """With port 0 the URL is known only when the socket is."""
    assert worker.WorkerSettings(listen=listen, hostname="host-1").url_at(7) == expected


def test_configured_base_url_stays() -> None:
    """Behind a proxy, where the worker listens says nothing about how it is reached."""
    assert worker.WorkerSettings(base_url="https://w.example/").url_at(7) == "https://w.example"
    assert control.ControlSettings(base_url="https://c.example").url_at(7) == "https://c.example"


def test_control_plane_is_reached_where_it_listens() -> None:
    """A wildcard is no place to connect to."""
    assert control.ControlSettings(listen=":0").url_at(7) == "http://localhost:7"
    assert control.ControlSettings(listen=":80").base_url == "http://localhost:80"


@pytest.mark.parametrize(
    "roots, auth, expected",
    [((), groups.AuthSettings(), True), ((), prod(), False), ((Path("/i"),), groups.AuthSettings(), False)],
)
def test_paths_of_the_host_are_for_dev_mode(roots: tuple[Path, ...], auth: groups.AuthSettings, expected: bool) -> None:
    """In prod mode a caller names no path of the host, unless an operator allowed its directory."""
    assert worker.WorkerSettings(image_roots=roots, auth=auth).any_image_path is expected


def test_settings_and_telemetry_import_no_framework() -> None:
    """A command line that only reads settings must not pay for a web framework."""
    code = (
        "import sys; from traforo.settings import control, worker, sources; "
        "from traforo.telemetry import logs, metrics, labels, traces; "
        "print([name for name in ('fastapi', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
