"""Two sandboxes on one host: neither sees, reaches or starves the other."""

from __future__ import annotations

import os
import socket

import pytest

from tests.security import ablations, labs
from traforo.worker.hosts import features

IPC_CREAT = "01666"
KEY = "0x54524146"


async def test_processes_of_others_are_not_there(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Each sandbox counts its processes from 1, and finds and reaches none but its own."""
    other = await lab.create()
    sleeping = await labs.begin(other, "take", "files", "1", "keep")
    show = "cat /proc/[0-9]*/comm"
    assert "probe" in (await labs.run(other, show)).lines
    assert set((await labs.run(sandbox, show)).lines) <= {"init", "sh", "cat"}
    assert await labs.calls(sandbox, f"kill {other.pid} 0", f"pidfd_open {other.pid} 0") == ["ESRCH", "ESRCH"]
    await labs.end(sleeping)


async def test_sockets_of_others_cannot_be_reached(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Neither by an abstract name nor by a port, though both listen on every address they have."""
    other = await lab.create()
    name, port = "traforo-neighbour", "4711"
    serving = await labs.begin(other, "serve", name, port)
    assert await labs.probe(other, "visit", name, "0x7f000001", port) == ["ok", "ok"]
    assert await labs.probe(sandbox, "visit", name, "0x7f000001", port) == ["ECONNREFUSED", "ECONNREFUSED"]
    await labs.end(serving)
    weak = [await lab.create(ablations.sharing(features.CLONE_NEWNET)) for _ in range(2)]
    serving = await labs.begin(weak[0], "serve", name, port)
    assert (await labs.probe(weak[1], "visit", name, "0x7f000001", port))[0] == "ok"
    await labs.end(serving)


async def test_sockets_of_the_host_cannot_be_reached(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Neither by an abstract name, nor on the loopback address, nor on an address of the host's network."""
    name = f"traforo-host-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as local, socket.socket() as wide:
        local.bind(f"\0{name}")
        local.listen()
        wide.bind(("", 0))
        wide.listen()
        port = str(wide.getsockname()[1])
        assert await labs.probe(sandbox, "visit", name, "0x7f000001", port) == ["ECONNREFUSED", "ECONNREFUSED"]
        assert (await labs.probe(sandbox, "visit", name, "0x0a000001", port))[1] == "ENETUNREACH"
        weak = await lab.create(ablations.sharing(features.CLONE_NEWNET))  # with the spawner, which has left the host's
        assert await labs.probe(weak, "visit", name, "0x7f000001", port) == ["ECONNREFUSED", "ENETUNREACH"]


async def test_the_network_is_a_loopback_alone(sandbox: labs.Sandbox) -> None:
    """No interface, route or neighbour of the host is there, and none can be made."""
    done = await labs.run(
        sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route; cat /proc/net/arp | tail -n +2"
    )
    assert [line.strip() for line in done.lines] == ["lo"]
    link = "ioctl 0 0x8914 z:40"  # SIOCSIFFLAGS on what is no socket: the capability is what matters
    assert await labs.calls(sandbox, "socket 16 3 0", link) == ["ok", "ENOTTY"]
    done = await labs.run(
        sandbox, "ip link add dummy0 type dummy || ip link set lo down || ip addr add 10.0.0.1/8 dev lo"
    )
    assert done.exit.code != 0


async def test_interprocess_communication_is_a_sandboxs_own(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Shared memory, semaphores and queues of others, and of the host, are not found by their names."""
    other = await lab.create()
    assert await labs.probe(other, "exchange", KEY, IPC_CREAT) == ["ok"] * 4
    lab.on_host("exchange", KEY, IPC_CREAT)
    try:
        assert await labs.probe(sandbox, "exchange", KEY, "0") == ["ENOENT"] * 4
        weak = await lab.create(ablations.sharing(features.CLONE_NEWIPC))
        assert "ENOENT" not in await labs.probe(weak, "exchange", KEY, "0")
    finally:
        lab.on_host("forget", KEY)


async def test_shared_memory_files_are_a_sandboxs_own(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """/dev/shm, /tmp and terminals of one are not those of another."""
    other = await lab.create()
    await labs.run(other, "echo x > /dev/shm/neighbour; echo x > /tmp/neighbour; echo x > /var/tmp/neighbour")
    done = await labs.run(sandbox, "ls -A /dev/shm /tmp /var/tmp | grep neighbour")
    assert done.lines == []
    assert len({os.stat(f"/proc/{box.pid}/root/dev/pts").st_dev for box in (sandbox, other)}) == 2


async def test_names_are_a_sandboxs_own(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """The host's name is not told, and the sandbox's own cannot be changed by anybody inside."""
    show = "hostname x 2>/dev/null; uname -n; cat /proc/sys/kernel/hostname /etc/hostname"
    assert (await labs.run(sandbox, show)).lines == [labs.HOSTNAME] * 3
    weak = await lab.create(ablations.sharing(features.CLONE_NEWUTS))
    assert (await labs.run(weak, "uname -n")).lines == [os.uname().nodename]


MOST = {"watchers": 5000, "signals": 200000, "timers": 200000, "queues": 500, "terminals": 5000}
"""What the kernel counts for a user or for the whole host, and how many of each a test asks for at most."""


@pytest.mark.parametrize("thing", MOST)
async def test_one_sandbox_cannot_take_what_others_need(lab: labs.Lab, sandbox: labs.Sandbox, thing: str) -> None:
    """It may use up its own share; a neighbour, and the host, go on."""
    other = await lab.create()
    greedy = await labs.start(sandbox, [labs.PROBE, "take", thing, str(MOST[thing]), "keep"])
    taken = int(await labs.line(greedy))
    left = int((await labs.probe(other, "take", thing, "8"))[0])
    on_host = int(lab.on_host("take", thing, "8")[0])
    await labs.end(greedy)
    assert (left, on_host) == (8, 8)
    assert 8 <= taken < MOST[thing]


async def test_where_root_pays_for_everybody_one_can_take_it_all(lab: labs.Lab) -> None:
    """Proves the test above: the kernel counts for the maker of a user namespace, who must not be the same for all."""
    first, second = await lab.create(ablations.unowned), await lab.create(ablations.unowned)
    greedy = await labs.start(first, [labs.PROBE, "take", "watchers", str(MOST["watchers"]), "keep"])
    await labs.line(greedy)
    left = int((await labs.probe(second, "take", "watchers", "8"))[0])
    await labs.end(greedy)
    assert left < 8


async def test_what_the_host_has_once_for_all_is_not_given_out(sandbox: labs.Sandbox) -> None:
    """Asynchronous requests of the old kind are counted for the host as a whole (fs.aio-max-nr): nobody gets any."""
    assert await labs.probe(sandbox, "take", "requests", "8") == ["0"]


@pytest.mark.parametrize("path", ["/usr/bin/env", "/etc/passwd", "/tmp", "/proc/version"])
async def test_nobody_can_watch_what_others_open(lab: labs.Lab, sandbox: labs.Sandbox, path: str) -> None:
    """Files of the image are the same on the host, and still a sandbox's own to watch."""
    other = await lab.create()
    watching = await labs.start(sandbox, [labs.PROBE, "watch", path])
    if await labs.line(watching) == "ready":
        await labs.run(other, f"cat {path} > /dev/null; ls {path} > /dev/null")
        assert not watching.ended.done()
        await labs.run(sandbox, f"cat {path} > /dev/null; ls {path} > /dev/null")
        if path != "/proc/version":
            assert await labs.line(watching) == "event"
    await labs.end(watching)
