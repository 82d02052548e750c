"""System calls that reach the host's kernel, and the door they would come by: the filter, the capabilities, or both.

Each call is made once where it must be refused, and once where nothing refuses it: in a sandbox without filter and with
every capability, or, where the kernel wants a capability of the host itself, by the host's root with arguments that
make the call fail for another reason.
"""

from __future__ import annotations

import pytest

from tests.security import ablations, labs
from traforo.worker.runtimes.container import plans

# name, call, what it must answer
IN_A_WEAK_SANDBOX = [
    ("mount", "mount s:none s:/mnt s:tmpfs 0 null", "EPERM"),
    ("bind mount", "mount s:/etc s:/mnt null 0x1000 null", "EPERM"),
    ("remount /proc/sys", "mount s:none s:/proc/sys null 0x1020 null", "EPERM"),
    ("umount", "umount2 s:/dev/shm 2", "EPERM"),
    ("umount a mask", "umount2 s:/proc/kallsyms 2", "EPERM"),
    ("pivot_root", "pivot_root s:/mnt s:/mnt", "EPERM"),
    ("open_tree", "open_tree -100 s:/ 1", "EPERM"),
    ("open_tree_attr", "open_tree_attr -100 s:/ 1 null 0", "EPERM"),
    ("fsopen", "fsopen s:tmpfs 0", "EPERM"),
    ("fspick", "fspick -100 s:/dev/shm 0", "EPERM"),
    ("fsmount", "fsmount -1 0 0", "EPERM"),
    ("move_mount", "move_mount -100 s:/ -100 s:/mnt 0", "EPERM"),
    ("mount_setattr", "mount_setattr -100 s:/proc 0 z:32 32", "EPERM"),
    ("setns", "setns -1 0", "EPERM"),
    ("sethostname", "sethostname s:x 1", "EPERM"),
    ("setdomainname", "setdomainname s:x 1", "EPERM"),
    ("keyctl", "keyctl 0 -3 1", "EPERM"),
    ("add_key", "add_key s:user s:traforo s:x 1 -2", "EPERM"),
    ("request_key", "request_key s:user s:traforo null -2", "EPERM"),
    ("perf_event_open", "perf_event_open z:128 0 -1 -1 0", "EPERM"),
    ("io_uring_setup", "io_uring_setup 1 z:120", "EPERM"),
    ("io_uring_enter", "io_uring_enter -1 0 0 0 null 0", "EPERM"),
    ("io_uring_register", "io_uring_register -1 0 null 0", "EPERM"),
    ("userfaultfd", "userfaultfd 1", "EPERM"),
    ("open_by_handle_at", "open_by_handle_at -1 h:0800000001000000020000000000000000 0", "EPERM"),
    ("fanotify_init", "fanotify_init 0x200 0", "EPERM"),
    ("quotactl", "quotactl 0x800007 s:/nonexistent 0 null", "EPERM"),
    ("clock_settime", "clock_settime 0 h:00000000000000000000000000000080", "EPERM"),
    ("adjtimex", "adjtimex z:256", "EPERM"),
    ("clock_adjtime", "clock_adjtime 0 z:256", "EPERM"),
    ("personality that makes memory executable", "personality 0x400000", "EPERM"),
    ("TIOCSTI", "ioctl 0 0x5412 z:8", "EPERM"),
    ("TIOCSTI with more bits than the kernel reads", "ioctl 0 0x100005412 z:8", "EPERM"),
    ("TIOCLINUX", "ioctl 0 0x541c z:8", "EPERM"),
    ("packet socket", "socket 17 3 0", "EAFNOSUPPORT"),
    ("netlink beyond routing", "socket 16 3 16", "EPROTONOSUPPORT"),
    ("netlink of the audit system", "socket 16 3 9", "EPROTONOSUPPORT"),
    ("vsock", "socket 40 1 0", "EAFNOSUPPORT"),
    ("trusted attribute", "setxattr s:/tmp s:trusted.overlay.opaque s:y 1 0", "EPERM"),
]

BY_THE_HOST = [
    ("raw socket", "socket 2 3 1", "EPERM"),  # the network namespace is not the sandbox's own
    ("raw IPv6 socket", "socket 10 3 58", "EPERM"),
    ("bpf", "bpf 9999 z:128 128", "EPERM"),
    ("reboot", "reboot 0 0 0 null", "EPERM"),
    ("kexec_load", "kexec_load 0 99 null 0", "EPERM"),
    ("swapon", "swapon s:/nonexistent 0", "EPERM"),
    ("swapoff", "swapoff s:/nonexistent", "EPERM"),
    ("acct", "acct s:/nonexistent", "EPERM"),
    ("settimeofday", "settimeofday null null", "EPERM"),
    ("kernel log", "syslog 10 null 0", "EPERM"),
    ("time for oneself alone", "sched_setscheduler 0 1 h:01000000", "EPERM"),
    ("time before others", "setpriority 0 0 -10", "EACCES"),
]

WITHOUT_CONTROL = [
    ("init_module", "init_module z:64 64 s:", "EPERM"),
    ("finit_module", "finit_module 0 s: 0", "EPERM"),
    ("delete_module", "delete_module s:traforo 0", "EPERM"),
    ("vhangup", "vhangup", "EPERM"),
    ("mknod of a block device", "mknodat -100 s:/tmp/b 0x6180 0x800", "EPERM"),
    ("mknod of a character device", "mknodat -100 s:/tmp/c 0x2180 0x101", "EPERM"),
    ("a number that nobody knows", "9999", "ENOSYS"),
]
"""The host may be built without modules, a terminal hung up there would be somebody's; devices have a test of their own."""

CLONE_FLAGS = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def _answers(cases: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: answer for name, _, answer in cases}


@pytest.mark.parametrize("user", ["root", "user"])
async def test_calls_that_reach_the_kernel_are_refused(sandbox: labs.Sandbox, user: str) -> None:
    """Every one of them, whoever makes it."""
    cases = IN_A_WEAK_SANDBOX + BY_THE_HOST + WITHOUT_CONTROL
    found = await labs.calls(sandbox, *(call for _, call, _ in cases), user=user)
    names = [name for name, _, _ in cases]
    assert dict(zip(names, found, strict=True)) == _answers(cases)


async def test_a_pair_of_sockets_is_of_no_other_kind_than_one_socket(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Socketpair makes two sockets before it finds that their family has no pairs: the filter has to know it too."""
    pairs = ["socketpair 40 1 0 z:8", "socketpair 16 3 16 z:8", "socketpair 38 5 0 z:8"]
    assert await labs.calls(sandbox, *pairs) == ["EAFNOSUPPORT"] * 3
    assert await labs.calls(sandbox, "socketpair 1 1 0 z:8", "socketpair 1 5 0 z:8") == ["ok"] * 2
    weak = await lab.create(ablations.unfiltered)
    assert (await labs.calls(weak, *pairs))[1] == "ENOTSUP"


async def test_without_filter_and_limits_the_calls_are_not_refused(lab: labs.Lab) -> None:
    """Proves the test above: a kernel that is let answers something else, were it that the arguments make no sense."""
    weak = await lab.create(ablations.powerful)
    found = await labs.calls(weak, *(call for _, call, _ in IN_A_WEAK_SANDBOX))
    same = [case[0] for case, answer in zip(IN_A_WEAK_SANDBOX, found, strict=True) if answer == case[2]]
    assert same == []


def test_without_a_sandbox_the_calls_are_not_refused(site: labs.Site, lab: labs.Lab) -> None:
    """Proves the rest of it: root of the host gets another answer."""
    found = lab.on_host("calls", *(call for _, call, _ in BY_THE_HOST))
    same = [case[0] for case, answer in zip(BY_THE_HOST, found, strict=True) if answer == case[2]]
    assert same == []


@pytest.mark.parametrize("weakening", [ablations.capable, ablations.unfiltered])
async def test_one_of_two_walls_is_enough(lab: labs.Lab, weakening: ablations.Weakening) -> None:
    """Mounts and namespaces are refused by the filter without the limit on capabilities, and the other way round."""
    weak = await lab.create(weakening)
    found = await labs.calls(
        weak, "mount s:none s:/mnt s:tmpfs 0 null", "umount2 s:/proc/kallsyms 2", "unshare 0x20000", "fsopen s:tmpfs 0"
    )
    assert found == ["EPERM"] * 4


@pytest.mark.parametrize("user", ["root", "user"])
async def test_no_namespace_can_be_made(sandbox: labs.Sandbox, user: str) -> None:
    """Of no kind, by none of three calls; clone3 hides its flags from the filter, and the kernel itself says no."""
    found = await labs.probe(sandbox, "namespaces", *map(hex, CLONE_FLAGS.values()), user=user)
    expected = dict.fromkeys(CLONE_FLAGS, "EPERM EPERM EPERM") | {"user": "EPERM ENOSPC EPERM"}
    assert dict(zip(CLONE_FLAGS, found, strict=True)) == expected


@pytest.mark.parametrize("weakening", [ablations.nestable, lambda plan: ablations.powerful(ablations.nestable(plan))])
async def test_a_limit_of_none_is_what_stops_nested_user_namespaces(
    lab: labs.Lab, weakening: ablations.Weakening
) -> None:
    """Proves the test above: without it clone3 makes them, even past the filter."""
    weak = await lab.create(weakening)
    found = await labs.probe(weak, "namespaces", hex(CLONE_FLAGS["user"]))
    assert found[0].split()[1] == "ok"


async def test_every_namespace_can_be_made_where_nothing_stops_it(lab: labs.Lab) -> None:
    """Proves the same for the other namespaces."""
    weak = await lab.create(lambda plan: ablations.powerful(ablations.nestable(plan)))
    found = await labs.probe(weak, "namespaces", *map(hex, CLONE_FLAGS.values()))
    assert dict(zip(CLONE_FLAGS, found, strict=True)) == dict.fromkeys(CLONE_FLAGS, "ok ok ok")


async def test_code_for_other_machines_makes_no_calls(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """The filter knows the numbers of one architecture; those of another mean other calls."""
    assert await labs.probe(sandbox, "doors") == ["ENOSYS", "ENOSYS"]
    if labs.has_32_bit_calls():
        weak = await lab.create(ablations.unfiltered)
        assert (await labs.probe(weak, "doors"))[0] == "ok"


async def test_the_filter_is_on_every_process(sandbox: labs.Sandbox) -> None:
    """Root's commands, others', and those that set-id programs start."""
    status = "grep -h ^Seccomp: /proc/1/status /proc/self/status"
    for user in ("root", "user"):
        done = await labs.run(sandbox, status, user=user)
        assert done.lines == ["Seccomp:\t2", "Seccomp:\t2"]


async def test_root_inside_has_few_capabilities(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """None of the bounding set leads to the kernel, and what is not there cannot be gained."""
    done = await labs.run(sandbox, "grep -h ^Cap /proc/self/status")
    mask = f"{plans.CAPABILITY_MASK:016x}"
    empty = "0" * 16
    assert done.lines == [
        f"CapInh:\t{empty}",
        f"CapPrm:\t{mask}",
        f"CapEff:\t{mask}",
        f"CapBnd:\t{mask}",
        f"CapAmb:\t{empty}",
    ]
    dangerous = {12: "net_admin", 13: "net_raw", 16: "sys_module", 17: "sys_rawio", 19: "sys_ptrace", 21: "sys_admin"}
    assert [name for bit, name in dangerous.items() if plans.CAPABILITY_MASK >> bit & 1] == []
