"""/proc: what it tells of the host is hidden, what acts on the host cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security import ablations, labs
from traforo.worker.runtimes.container import plans

WRITABLE_ON_THE_HOST = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/printk",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ping_group_range",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/mtrr",
    "/proc/1/oom_score_adj",
    "/proc/1/uid_map",
    "/proc/1/gid_map",
    "/proc/1/setgroups",
    "/proc/1/comm",
    "/proc/1/coredump_filter",
    "/proc/1/clear_refs",
    "/proc/1/sched",
    "/proc/1/autogroup",
    "/proc/1/timens_offsets",
]
DEVICES = {"/proc/kcore", "/proc/kmsg", "/proc/mtrr", "/proc/sysrq-trigger"}
"""Masked by a device that swallows what is written."""


def _there(paths: list[str]) -> list[str]:
    return [path for path in paths if Path(path).exists()]


@pytest.mark.parametrize("user", ["root", "user"])
async def test_nothing_that_acts_on_the_host_can_be_written(sandbox: labs.Sandbox, user: str) -> None:
    """Neither settings of the kernel, nor what the host decided about the sandbox's own init."""
    paths = [path for path in _there(WRITABLE_ON_THE_HOST) if path not in DEVICES]
    found = await labs.calls(sandbox, *(f"openat -100 s:{path} 1" for path in paths), user=user)
    opened = [path for path, answer in zip(paths, found, strict=True) if answer not in {"EACCES", "EROFS", "EPERM"}]
    assert opened == []


async def test_settings_of_a_sandboxs_own_namespaces_are_read_only_by_a_mount(lab: labs.Lab) -> None:
    """Proves the test above: of two walls, this mount and the missing capability, each alone is enough."""
    attack = "openat -100 s:/proc/sys/user/max_inotify_watches 1"
    assert await labs.calls(await lab.create(ablations.capable), attack) == ["EROFS"]
    assert await labs.calls(await lab.create(ablations.writable), attack) == ["EACCES"]
    weak = await lab.create(lambda plan: ablations.writable(ablations.capable(plan)))
    assert await labs.calls(weak, attack) == ["ok"]


async def test_the_limit_of_user_namespaces_cannot_be_raised(lab: labs.Lab) -> None:
    """Neither with /proc/sys writable nor as root: it takes a capability that root inside lacks."""
    write = "echo 100 > /proc/sys/user/max_user_namespaces; cat /proc/sys/user/max_user_namespaces"
    for weakening in (None, ablations.writable):
        sandbox = await lab.create(weakening)
        assert (await labs.run(sandbox, write)).stdout == b"0\n"
    weak = await lab.create(lambda plan: ablations.writable(ablations.powerful(plan)))
    assert (await labs.run(weak, write)).stdout == b"100\n"


async def test_what_tells_of_the_host_is_hidden(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Addresses of the kernel, its log, its memory, keys, timers, interrupts: each is empty, and was not without masks."""
    masked, _ = plans.look_at_proc()
    names = " ".join(name for name, _ in masked)
    count = "if [ -d $n ]; then ls -A $n; else timeout 1 head -c 100 $n 2>/dev/null; fi | wc -c"
    show = f"cd /proc; for n in {names}; do echo $n $({count}); done"
    assert [line for line in (await labs.run(sandbox, show)).lines if not line.endswith(" 0")] == []
    weak = await lab.create(ablations.unmasked)
    shown = [line.split()[0] for line in (await labs.run(weak, show)).lines if not line.endswith(" 0")]
    assert {"kallsyms", "interrupts"} <= set(shown)


async def test_masks_cannot_be_taken_off(sandbox: labs.Sandbox) -> None:
    """They are mounts: what lies below cannot be reached by another path, by a link or by renaming."""
    attacks = (
        "mv /proc/kallsyms /proc/x; ln /proc/kallsyms /tmp/x; cat /proc/self/root/proc/kallsyms /proc/../proc/kallsyms"
    )
    done = await labs.run(sandbox, attacks)
    assert done.stdout == b""


async def test_nobody_lowers_the_odds_of_being_killed_for_memory(sandbox: labs.Sandbox) -> None:
    """Sandboxes go before the host's own processes when memory is short; root inside cannot change that."""
    floor = 500 if labs.host_capability(24) else 0  # without CAP_SYS_RESOURCE nobody can set a floor but the kernel
    start = await labs.run(sandbox, "cat /proc/self/oom_score_adj")
    assert int(start.stdout) >= 500
    attacks = (
        f"for n in {floor} {floor - 1} -1000; do echo $n > /proc/self/oom_score_adj; done; cat /proc/self/oom_score_adj"
    )
    assert (await labs.run(sandbox, attacks)).stdout == f"{floor}\n".encode()


async def test_no_file_system_of_the_kernel_is_mounted_but_proc(sandbox: labs.Sandbox) -> None:
    """No sysfs, no cgroups (so no release_agent), no debugfs, no bpf, no terminals of others."""
    done = await labs.run(sandbox, "cut -d' ' -f3 /proc/self/mounts | sort -u")
    assert done.lines == ["devpts", "overlay", "proc", "tmpfs"]
    done = await labs.run(
        sandbox, "find / -xdev -name release_agent -o -name cgroup.procs 2>/dev/null; ls -A /sys /dev/pts"
    )
    assert done.stdout == b"/dev/pts:\nptmx\n\n/sys:\n"
