"""A relay brings every byte both ways and tells each end; descriptors stay behind."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from traforo.domain import errors
from traforo.worker.runtimes.container import relays


def _pair(to: relays.Relays | None = None) -> tuple[socket.socket, socket.socket]:
    """Return the end of a server inside, and what the worker gets."""
    inside, outer = socket.socketpair()
    try:
        given = (to or relays.Relays()).start(outer)
    except errors.RateLimited:
        inside.close()
        raise
    assert not given.getblocking()
    given.setblocking(True)
    return inside, given


def _read(end: socket.socket) -> bytes:
    found = b""
    while piece := end.recv(1 << 16):
        found += piece
    return found


@pytest.mark.parametrize("inward", [True, False])
def test_every_byte_arrives(inward: bool) -> None:
    """More than all buffers on the way hold, and then the end; the other way stays open."""
    inside, given = _pair()
    source, target = (given, inside) if inward else (inside, given)
    data = os.urandom(1 << 16) * 32

    def send() -> None:
        source.sendall(data)
        source.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert _read(target) == data
    sender.join()
    target.sendall(b"and back")
    target.close()
    assert _read(source) == b"and back"
    source.close()


def test_descriptors_stay_behind() -> None:
    """They are closed, and the bytes that they came with arrive."""
    inside, given = _pair()
    reader, writer = os.pipe()
    socket.send_fds(inside, [b"with"], [writer] * 100)
    os.close(writer)
    inside.close()
    data, found, _, _ = socket.recv_fds(given, 100, 100)
    assert (data, found) == (b"with", [])
    assert os.read(reader, 1) == b""  # nobody has the other end any more
    os.close(reader)
    given.close()


@pytest.mark.parametrize("inward", [True, False])
def test_an_end_that_goes_ends_the_other(inward: bool) -> None:
    """Without a word, or in the middle of one."""
    inside, given = _pair()
    source, target = (given, inside) if inward else (inside, given)
    source.sendall(b"last")
    source.close()
    assert _read(target) == b"last"
    target.close()


def test_there_are_so_many() -> None:
    """One more is refused and closed; a relay that has ended makes room."""
    some = relays.Relays(2)
    pairs = [_pair(some), _pair(some)]
    inside, outer = socket.socketpair()
    with pytest.raises(errors.RateLimited, match="2 connections"):
        some.start(outer)
    assert (outer.fileno(), inside.recv(1)) == (-1, b"")
    inside.close()
    for end in pairs.pop():
        end.close()
    pairs.append(_next(some))
    for pair in pairs:
        for end in pair:
            end.close()


def _next(some: relays.Relays) -> tuple[socket.socket, socket.socket]:
    """Return a pair as soon as there is room: threads end in their own time."""
    for _ in range(1000):
        try:
            return _pair(some)
        except errors.RateLimited:
            time.sleep(0.01)
    raise AssertionError("a relay that has ended makes no room")
