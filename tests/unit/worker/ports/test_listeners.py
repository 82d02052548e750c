"""Listening sockets as the kernel's tables show them."""

from __future__ import annotations

import os
import socket

from traforo.worker.ports import listeners

TCP = """\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12347 1 0 20 4 30 10 -1"""
TCP6 = """\
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 1"""


def test_tables() -> None:
    """Only what listens, with its address as people write it."""
    assert sorted(listeners.parse(TCP.splitlines())) == [
        listeners.Listener(80, "0.0.0.0"),
        listeners.Listener(8080, "127.0.0.1"),
    ]
    assert list(listeners.parse(TCP6.splitlines())) == [listeners.Listener(8080, "::1")]
    assert list(listeners.parse(["", "x", "a b c d"])) == []


def test_this_process() -> None:
    """A socket that listens here is found, and no longer when it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted = listeners.Listener(server.getsockname()[1], "127.0.0.1")
        assert wanted in listeners.find(os.getpid())
    assert wanted not in listeners.find(os.getpid())


def test_a_process_that_is_gone() -> None:
    """It listens to nothing."""
    assert listeners.find(2**22 + 1) == []
