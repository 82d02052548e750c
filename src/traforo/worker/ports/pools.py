"""Connections into the ports of one sandbox: made, kept for a while, counted, and given up when nobody answers.

A connection that was used is offered to the next request for the same port as long as nothing speaks against it.
Everything ends with the sandbox.
"""

from __future__ import annotations

import asyncio
import collections
import select
import socket
from collections.abc import Callable

from traforo.domain import errors
from traforo.worker.ports import answers, upstreams
from traforo.worker.sandboxes import entries

MAX_CONNECTIONS = 512
"""Most connections into one sandbox at once."""
MAX_IDLE = 32
"""Most idle connections that are kept to one port."""
IDLE_SECONDS = 4.0
"""How long an idle connection is kept: common servers close theirs after five seconds."""
CONNECT_SECONDS = 10.0
"""How long the sandbox may take to give a connection."""
LOOK_SECONDS = 1.0
"""How often what is overdue is looked for."""


class Room:
    """How many connections into sandboxes a worker has, over all of them: each takes two of its descriptors."""

    def __init__(self, limit: int, changed: Callable[[int], None]) -> None:
        """Begin with none. `changed` is told by how many their number changes."""
        self.limit = limit
        self.used = 0
        self._changed = changed

    @property
    def full(self) -> bool:
        """Whether none can come any more."""
        return self.used >= self.limit

    def change(self, by: int) -> None:
        """Note that so many came, or went."""
        self.used += by
        self._changed(by)


class Pool:
    """The connections into one sandbox. Belongs to one event loop."""

    def __init__(self, entry: entries.Entry, buffer: memoryview, room: Room) -> None:
        """Begin with none."""
        self.entry = entry
        self.tunnels = 0
        """How many of them no longer speak HTTP."""
        self._loop = asyncio.get_running_loop()
        self._buffer = buffer
        self._room = room
        self._changed = room.change
        self._open: dict[upstreams.Upstream, int] = {}
        self._idle: dict[int, collections.deque[upstreams.Upstream]] = collections.defaultdict(collections.deque)
        self._known: dict[bytes, answers.Answer] = {}
        self._opening = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._open) + self._opening

    def take(self, port: int, *, sure: bool) -> upstreams.Upstream | None:
        """Return an idle connection, None if there is none. With `sure` the server has not closed its end by now."""
        idle = self._idle.get(port)
        while idle:
            found = idle.pop()
            if found.usable and (not sure or _quiet(found)):
                return found
            found.abandon()
        return None

    async def connect(self, port: int, *, raw: bool = False) -> upstreams.Upstream:
        """Return a new connection; with `raw` for a tunnel, not for HTTP.

        Raises `PortUnreachable`, `UpstreamTimeout`, `RateLimited` (too many are open), and `Conflict` and `Lost` for a
        sandbox that has ended.
        """
        running = self.entry.running
        if running is None or self._closed:
            raise errors.Conflict("cannot use the sandbox: it has ended", state=self.entry.state.value)
        if len(self) >= MAX_CONNECTIONS and not self._evict():
            message = f"cannot connect: {MAX_CONNECTIONS} connections into the sandbox are open"
            raise errors.RateLimited(message, limit=MAX_CONNECTIONS)
        if self._room.full and not self._evict():
            raise errors.RateLimited(
                f"cannot connect: {self._room.limit} connections into sandboxes are open", limit=self._room.limit
            )
        self._opening += 1
        self._changed(1)
        upstream = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await running.connect(port)
                upstream = await self._wrapped(found, port, raw=raw)
                return upstream
        except TimeoutError as error:
            message = f"cannot reach port {port}: the sandbox does not connect"
            raise errors.UpstreamTimeout(message, port=port) from error
        except (errors.NotFound, OSError) as error:
            raise errors.PortUnreachable(f"cannot reach port {port}: nothing listens there", port=port) from error
        finally:
            self._opening -= 1
            if upstream not in self._open:  # it did not come about, or has ended already
                self._changed(-1)

    async def _wrapped(self, found: socket.socket, port: int, *, raw: bool) -> upstreams.Upstream:
        try:
            if found.family in {socket.AF_INET, socket.AF_INET6}:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, upstream = await self._loop.create_connection(
                lambda: upstreams.Upstream(self._buffer, self._free, self._lost, self._known, raw=raw), sock=found
            )
        except BaseException:
            found.close()
            raise
        if upstream.usable:  # else it has told of its end already
            self._open[upstream] = port
            self._watch()
        return upstream

    def close(self) -> None:
        """Give up every connection; whoever waits for an answer is told."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for upstream in tuple(self._open):
            upstream.transport.abort()

    # ----------------------------------------------------------------------------------------------- the rest

    def _free(self, upstream: upstreams.Upstream) -> None:
        idle = self._idle[self._open[upstream]]
        upstream.idle_since = self._loop.time()
        upstream.resume_reading()
        idle.append(upstream)
        if len(idle) > MAX_IDLE:
            idle.popleft().abandon()

    def _lost(self, upstream: upstreams.Upstream) -> None:
        port = self._open.pop(upstream, None)
        if port is None:
            return
        self._changed(-1)
        idle = self._idle.get(port)
        if idle is not None and upstream in idle:
            idle.remove(upstream)

    def _evict(self) -> bool:
        """Give up the connection that is idle for the longest time. Tell whether there was one."""
        waiting = [idle for idle in self._idle.values() if idle]
        if not waiting:
            return False
        upstream = min(waiting, key=lambda idle: idle[0].idle_since).popleft()
        upstream.abandon()
        self._lost(upstream)
        return True

    def _watch(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Close what was idle for long enough, and give up what does not answer."""
        self._timer = None
        now = self._loop.time()
        for upstream in tuple(self._open):
            if upstream.deadline is not None and upstream.deadline <= now:
                upstream.expire()
        for port, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since + IDLE_SECONDS <= now:
                idle.popleft().abandon()
            if not idle:
                del self._idle[port]
        if self._open:
            self._watch()


def _quiet(upstream: upstreams.Upstream) -> bool:
    """Tell whether the server has neither closed its end nor sent anything: both would show here at once."""
    poll = select.poll()
    poll.register(upstream.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)
