"""Connections from the worker to servers inside a sandbox, whose network nobody else can reach.

Where this process may enter network namespaces, it makes the socket itself, in a thread that does nothing else: the
open file is then its own. Elsewhere (rootless) the init makes it and hands it over, which is weaker: an init that
somebody took over shares that open file, and could make it blocking. What it sends is checked all the same.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import errno
import os
import socket
from collections.abc import Awaitable, Callable

from traforo.domain import errors
from traforo.wire import init_messages as wire
from traforo.worker.runtimes.container import channels, relays

CONNECT_SECONDS = 5.0
_CLONE_NEWNET = 0x40000000
_SO_PASSRIGHTS = 83
"""Linux 6.16: nobody can send descriptors along. Closing one may wait as long as its sender liked."""
_NAME_MAX = 107
_FULL_PAUSE_SECONDS = 0.01
_NOBODY = frozenset(
    {
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH,
        errno.EAFNOSUPPORT, errno.ETIMEDOUT, errno.EPROTOTYPE, errno.EACCES,
    }
)  # fmt: skip
"""What the kernel says when nothing listens, or when it listens in another way."""

Address = tuple[str, int] | bytes
Maker = Callable[[socket.AddressFamily, Address], Awaitable[socket.socket]]


class Namespaces:
    """Makes sockets in the network namespaces of others."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._home = -1
        self.refused = False
        """Whether the kernel has said that this process may not enter any."""
        self.relays = relays.Relays()
        """Of the connections that need one, to whatever sandbox."""

    async def make(self, namespace: int, family: socket.AddressFamily) -> socket.socket:
        """Return a non-blocking stream socket in a namespace given by descriptor. Raises `OSError`."""
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="sockets")
        copy = os.dup(namespace)  # its owner may close it while the thread is at work
        making = asyncio.get_running_loop().run_in_executor(self._pool, self._make, copy, family)
        try:
            return await asyncio.shield(making)
        except PermissionError:
            self.refused = True
            raise
        except asyncio.CancelledError:
            making.add_done_callback(_drop)
            raise

    def _make(self, namespace: int, family: socket.AddressFamily) -> socket.socket:
        try:
            if self._home < 0:
                self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._enter(namespace)
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
            finally:
                self._enter(self._home)  # so that the thread keeps no dead sandbox's network
        finally:
            os.close(namespace)
        made.setblocking(False)
        return made

    def _enter(self, namespace: int) -> None:
        if self._libc.setns(namespace, _CLONE_NEWNET) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Let the thread end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
        if self._home >= 0:
            os.close(self._home)
            self._home = -1


def _drop(making: asyncio.Future[socket.socket]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


async def prove(channel: channels.Channel) -> None:
    """See that the init answers: then its number is not another process by now. Raises `Closed`."""
    try:
        await channel.request(wire.Type.PING)
    except channels.Refused as error:
        raise channels.Closed("an init that answers nonsense") from error


class Network:
    """The network of one sandbox: where its namespace is, once it is known to be that of the sandbox."""

    def __init__(self, namespaces: Namespaces, channel: channels.Channel, pid: int) -> None:
        self._namespaces = namespaces
        self._channel = channel
        self._pid = pid
        self._namespace = -1
        self._opening = asyncio.Lock()
        self._closed = False

    async def connect(self, port: int | str) -> socket.socket:
        """Return a connected, non-blocking socket. Raises `NotFound`, `Lost`, `InvalidRequest`, `RateLimited`."""
        places = _places(port)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                for family, address in places:
                    try:
                        return await self._connect(family, address)
                    except OSError as error:
                        _judge(error)
        except TimeoutError as error:
            raise _nothing(port, "nothing answers") from error
        raise _nothing(port, "nothing listens")

    async def _connect(self, family: socket.AddressFamily, address: Address) -> socket.socket:
        if self._namespaces.refused or not await self._is_open():
            return await self._connect_by_init(family, address)
        while True:
            try:
                made = await self._namespaces.make(self._namespace, family)
            except PermissionError:
                return await self._connect_by_init(family, address)
            # Before it is connected: nobody can have sent anything yet.
            guarded = family is not socket.AF_UNIX or refuse_descriptors(made)
            try:
                code = made.connect_ex(b"\0" + address if isinstance(address, bytes) else address)
            except BaseException:
                made.close()
                raise
            if family is socket.AF_UNIX and code == errno.EAGAIN:  # its queue is full, and nothing tells when it is not
                made.close()
                await asyncio.sleep(_FULL_PAUSE_SECONDS)
                continue
            if code not in {0, errno.EINPROGRESS}:
                made.close()
                raise OSError(code, os.strerror(code))
            made = await _finish(made, address)
            return made if guarded else self._namespaces.relays.start(made)

    async def _connect_by_init(self, family: socket.AddressFamily, address: Address) -> socket.socket:
        made = await _finish(await self._ask(family, address), address)
        return self._namespaces.relays.start(made) if family is socket.AF_UNIX else made

    async def _is_open(self) -> bool:
        """Open the namespace; False where this process may not. Raises `Closed` when the sandbox is gone."""
        async with self._opening:
            if self._namespace >= 0:
                return True
            try:
                found = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except PermissionError:
                return False
            except OSError as error:
                if error.errno in channels.SHORT:
                    raise channels.Incomplete("cannot connect: too many open files") from error
                raise channels.Closed("the sandbox is gone") from error
            try:
                await prove(self._channel)
            except BaseException:
                os.close(found)
                raise
            if self._closed:
                os.close(found)
                raise channels.Closed("the sandbox is gone")
            self._namespace = found
            return True

    async def _ask(self, family: socket.AddressFamily, address: Address) -> socket.socket:
        """Have the init make it. Raises `OSError` as it says."""
        if isinstance(address, bytes):
            fields = wire.string(wire.Tag.NAME, address)
        else:
            fields = wire.number(wire.Tag.PORT, address[1])
            fields += wire.number(wire.Tag.VERSION, 6 if family is socket.AF_INET6 else 4)
        while True:
            try:
                reply = await self._channel.request(wire.Type.CONNECT, fields, takes=True, kinds=channels.SOCKETS)
            except channels.Refused as error:
                if error.errno != errno.EAGAIN:
                    raise OSError(error.errno, os.strerror(error.errno)) from error
                await asyncio.sleep(_FULL_PAUSE_SECONDS)
            else:
                return self._check(reply, family)

    def _check(self, reply: channels.Reply, family: socket.AddressFamily) -> socket.socket:
        """Return the socket that came if it is what was asked for."""
        sockets = [socket.socket(fileno=descriptor) for descriptor in reply.descriptors]
        if len(sockets) == 1 and _can_be(sockets[0], family):
            made = sockets[0]
            made.setblocking(False)
            return made
        channels.close_elsewhere([found.detach() for found in sockets])
        raise channels.Closed("an init sent something else than a socket")

    def close(self) -> None:
        """Let go of the namespace: the sandbox is dead. Idempotent."""
        self._closed = True
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1


def _places(port: int | str) -> list[tuple[socket.AddressFamily, Address]]:
    if isinstance(port, int):
        if not 1 <= port <= 65535:
            raise errors.InvalidRequest("a port is a number from 1 to 65535", field="port")
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    name = port.encode(errors="surrogateescape")
    if not 1 <= len(name) <= _NAME_MAX or b"\0" in name:
        raise errors.InvalidRequest(f"a name has 1 to {_NAME_MAX} bytes and no NUL", field="port")
    return [(socket.AF_UNIX, name)]


def _judge(error: OSError) -> None:
    """Raise what is no word about the server."""
    if error.errno in channels.SHORT:
        raise channels.Incomplete("cannot connect: too many open files") from error
    if error.errno not in _NOBODY:
        raise errors.Lost(f"cannot connect: {os.strerror(error.errno or 0).lower()}") from error


def _nothing(port: int | str, what: str) -> errors.NotFound:
    return errors.NotFound(f"{what} on {port!r} in the sandbox", kind="port", id=str(port))


def refuse_descriptors(connection: socket.socket) -> bool:
    """Have the kernel refuse to send descriptors to this socket. Returns whether it can."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:  # before Linux 6.16
        return False
    return True


def _can_be(found: socket.socket, family: socket.AddressFamily) -> bool:
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return found.family == family and found.type == socket.SOCK_STREAM and not listens


async def _finish(connection: socket.socket, address: Address) -> socket.socket:
    """Wait until it is connected. Raises `OSError` and closes it if it is not to be."""
    try:
        await _writable(connection)
        _check_connected(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_connected(connection: socket.socket, address: Address) -> None:
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    peer = connection.getpeername()
    if isinstance(address, tuple) and (peer[:2] != address or peer == connection.getsockname()):
        # One that is connected to itself: looking for a free port of its own, the kernel took the one it is to reach.
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connection.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(connection.fileno())
