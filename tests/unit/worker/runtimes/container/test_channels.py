"""What a channel makes of a peer that is slow, silent, full or gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from traforo.wire import init_messages as wire
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, inits, spawners

SOON = 0.02
"""Seconds of patience with a peer that will not answer: too few for one that could."""


@dataclass
class Peer:
    """The other end of a channel, which says what a test has it say."""

    end: socket.socket
    theirs: int
    events: list[wire.Message] = field(default_factory=list)
    closes: int = 0
    channel: channels.Channel | None = None

    def open(self, limits: channels.Limits | None = None) -> channels.Channel:
        """Make the channel."""
        self.channel = channels.Channel(self.theirs, self.events.append, self._closed, limits=limits)
        return self.channel

    def _closed(self) -> None:
        self.closes += 1

    def hear(self) -> wire.Message:
        """Take one request. Raises `BlockingIOError` if there is none."""
        return wire.decode(self.end.recv(wire.MSG_MAX))

    async def heard(self) -> wire.Message:
        """Take one request when it comes."""
        while True:
            try:
                return self.hear()
            except BlockingIOError:
                await asyncio.sleep(0.001)

    def answer(self, message: wire.Message) -> None:
        """Say that it is done."""
        self.end.send(wire.message(wire.Type.OK, message.request_id))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        made = Peer(ours, theirs.detach())
        yield made
        if made.channel is not None:
            made.channel.close()


async def test_a_request_that_is_not_answered_ends(peer: Peer) -> None:
    """It alone: the channel goes on, and the late answer is nobody's."""
    channel = peer.open(channels.Limits(seconds=SOON))
    with pytest.raises(channels.Silent):
        await channel.request(wire.Type.PING)
    late = peer.hear()
    peer.answer(late)
    asked = channel.request(wire.Type.PING, seconds=60)
    peer.answer(peer.hear())
    assert (await asked).message.kind == wire.Type.OK
    assert (channel.closed, peer.closes) == (False, 0)


async def test_a_late_answer_leaves_no_descriptor(peer: Peer) -> None:
    """Nobody takes what comes with it."""
    channel = peer.open(channels.Limits(seconds=SOON))
    with pytest.raises(channels.Silent):
        await channel.request(wire.Type.OPEN, takes=True)
    late = peer.hear()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    socket.send_fds(peer.end, [wire.message(wire.Type.OK, late.request_id)], [writing])
    os.close(writing)
    asked = channel.request(wire.Type.PING, seconds=60)
    peer.answer(peer.hear())
    await asked
    assert os.read(reading, 1) == b""  # else it would block: the last writer is gone
    os.close(reading)


@pytest.mark.parametrize("order", [(60.0, SOON), (SOON, 60.0), (60.0, SOON, 120.0, SOON)])
async def test_each_request_has_its_own_limit(peer: Peer, order: tuple[float, ...]) -> None:
    """One that may take long neither ends with the others nor keeps them waiting."""
    channel = peer.open()
    asked = [channel.request(wire.Type.PING, seconds=seconds) for seconds in order]
    for one, seconds in zip(asked, order, strict=True):
        if seconds == SOON:
            with pytest.raises(channels.Silent):
                await one
    patient = [one for one in asked if not one.done()]
    assert len(patient) == len(order) - order.count(SOON)
    for _ in order:
        peer.answer(peer.hear())
    assert len(await asyncio.gather(*patient)) == len(patient)


async def test_an_answer_that_is_there_counts(peer: Peer) -> None:
    """A process that stood still finds time up and the answer in its socket."""
    channel = peer.open(channels.Limits(seconds=0))
    asked = channel.request(wire.Type.PING)
    peer.answer(peer.hear())
    assert (await asked).message.kind == wire.Type.OK


async def test_where_the_peer_must_answer_silence_ends_the_channel(peer: Peer) -> None:
    """Whoever waits is told, once, and `on_close` too."""
    channel = peer.open(channels.Limits(seconds=SOON, strict=True))
    asked = [channel.request(wire.Type.PING), channel.request(wire.Type.PING, seconds=60)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [channels.Closed, channels.Closed]
    assert (channel.closed, peer.closes) == (True, 1)


async def test_only_so_many_requests_wait(peer: Peer) -> None:
    """One too many is refused and not sent; with an answer there is room again."""
    channel = peer.open(channels.Limits(requests=3))
    asked = [channel.request(wire.Type.PING) for _ in range(3)]
    with pytest.raises(channels.Busy):
        await channel.request(wire.Type.PING)
    heard = [peer.hear() for _ in range(3)]
    with pytest.raises(BlockingIOError):
        peer.hear()
    peer.answer(heard[0])
    await asked[0]
    again = channel.request(wire.Type.PING)
    for message in (*heard[1:], peer.hear()):
        peer.answer(message)
    assert len(await asyncio.gather(*asked, again)) == 4


async def test_only_so_many_bytes_wait_for_a_full_socket(peer: Peer) -> None:
    """Then requests are refused; what was taken arrives whole and in order when the peer reads, and there is room."""
    channel = peer.open(channels.Limits(unsent_bytes=1 << 20))
    large = wire.field(wire.Tag.LABEL, bytes(100_000))
    asked: list[asyncio.Future[channels.Reply]] = []
    while len(asked) < 1000 and not (asked and asked[-1].done()):
        asked.append(channel.request(wire.Type.EXEC, large))
    with pytest.raises(channels.Busy):
        await asked.pop()
    assert 10 < len(asked) < 200
    ids = []
    for _ in asked:
        message = await peer.heard()
        ids.append(message.request_id)
        peer.answer(message)
    await asyncio.gather(*asked)
    assert ids == [(ids[0] + number - 1) % 0xFFFFFFFF + 1 for number in range(len(ids))]
    last = channel.request(wire.Type.EXEC, large)
    peer.answer(peer.hear())
    await last


@pytest.mark.parametrize("asks", [False, True])
async def test_last_words_are_heard(peer: Peer, asks: bool) -> None:
    """What a peer said before it died counts, also where it left requests unread, and where those to come fail."""
    channel = peer.open()
    asked = channel.request(wire.Type.PING)  # which it never reads: the kernel calls that a reset
    peer.end.send(wire.message(wire.Type.EXEC_EXITED, 0, wire.number(wire.Tag.NUMBER, 7)))
    peer.end.close()
    if asks:
        with pytest.raises(channels.Closed):
            await channel.request(wire.Type.PING)
    with pytest.raises(channels.Closed):
        await asked
    assert [message.number(wire.Tag.NUMBER) for message in peer.events] == [7]
    assert (channel.closed, peer.closes) == (True, 1)


async def test_a_command_whose_start_was_not_answered_is_killed(peer: Peer) -> None:
    """Nobody has its number: when the init listens again it is told to kill and to forget it."""
    sandbox = inits.Sandbox(
        "sbx_x",
        peer.theirs,
        pid=1,
        label=b"",
        deadline=None,
        spawner=_no_spawner,
        oom_file=None,
        limits=channels.Limits(seconds=SOON),
    )
    with pytest.raises(channels.Silent):
        await sandbox.exec(contract.ExecStart(label=b"", argv=["true"], env={}))
    start, kill = await peer.heard(), await peer.heard()
    assert (start.kind, kill.kind) == (wire.Type.EXEC, wire.Type.SIGNAL)
    assert start.number(wire.Tag.NUMBER) == kill.number(wire.Tag.NUMBER)
    assert (kill.number(wire.Tag.SIGNAL), kill.number(wire.Tag.TREE)) == (9, 1)
    sandbox.channel.close()


def _no_spawner() -> spawners.Spawner:
    raise AssertionError("nobody asked for the spawner")
