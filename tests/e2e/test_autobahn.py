"""The suite that WebSocket implementations are held to, through the port proxy: it must not change what a server does.

Opt in with `TRAFORO_TEST_AUTOBAHN=<path of wstest>`: `autobahntestsuite` is on PyPI for Python 2.7 alone. It takes a
minute; compression, which is a matter of the two ends, would take many more and is left out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.servers import Up
from traforo import Sandbox

WSTEST = os.environ.get("TRAFORO_TEST_AUTOBAHN", "")
MINUTES = 15
PORT = 9001
SERVER = """
import asyncio, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=1 << 25, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""
LEFT_OUT = ("12.*", "13.*")
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""Between the first two lies only how the bytes of several frames fell into reads: any relay may join them."""

pytestmark = [
    pytest.mark.skipif(not WSTEST, reason="asks for Python 2.7: set TRAFORO_TEST_AUTOBAHN to a wstest"),
    pytest.mark.timeout(MINUTES * 60),
]


@pytest.fixture
def proxied(up: Up, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an echo server in a sandbox."""
    monkeypatch.setenv("TRAFORO_URL", up.control_url)
    monkeypatch.delenv("TRAFORO_TOKEN", raising=False)
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w") as tar:
        tar.add(Path(websockets.__file__).parent, "websockets")
    with Sandbox.create(memory_mib=512, ttl_seconds=MINUTES * 60) as sandbox:
        sandbox.files.write("/tmp/packages.tar", package.getvalue())
        sandbox.files.write("/tmp/server.py", SERVER)
        sandbox.exec("cd /tmp && tar xf packages.tar", check=True)
        run = sandbox.start(f"cd /tmp && exec python3 server.py {PORT}", background=True)
        next(frame for frame in run.output() if frame.type == "stdout")
        yield sandbox.ports.url(PORT).url.replace("http", "ws", 1) + "/"


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[str]:
    """URL of the same server without a sandbox."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    with subprocess.Popen([sys.executable, script, "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def test_what_passes_directly_passes_through_the_proxy(direct: str, proxied: str, tmp_path: Path) -> None:
    """Every case ends through the proxy as it ends without: its messages, and who closes with which code."""
    spec = tmp_path / "spec.json"
    servers = [{"agent": "direct", "url": direct}, {"agent": "proxied", "url": proxied}]
    spec.write_text(
        json.dumps(
            {
                "outdir": str(tmp_path / "reports"),
                "servers": servers,
                "cases": ["*"],
                "exclude-cases": LEFT_OUT,
                "exclude-agent-cases": {},
            }
        )
    )
    argv = [WSTEST, "--mode=fuzzingclient", f"--spec={spec}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    reports = json.loads((tmp_path / "reports" / "index.json").read_text())
    wanted = {case: outcome(report) for case, report in reports["direct"].items()}
    assert {case: outcome(report) for case, report in reports["proxied"].items()} == wanted
    assert sum(passed for passed, *_ in wanted.values()) > 250


def outcome(report: dict[str, object]) -> tuple[bool, object, object]:
    """Return whether a case passed, and how its connection was closed."""
    return report["behavior"] in PASSED, report["behaviorClose"], report["remoteCloseCode"]
