"""Plans and inits that lack one protection each: a test that still passes with them tests nothing.

A weakening takes a plan and returns one in which something is missing. What the plan cannot leave out, because it is
written in C, is taken out of a program of our own: the same sources, linked with a function that does not do its work.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from traforo.wire import init_messages as wire
from traforo.worker.hosts import features
from traforo.worker.runtimes.container import plans

Weakening = Callable[[plans.Plan], plans.Plan]

SOURCES = Path(__file__).parents[2] / "init" / "src"
EVERY_CAPABILITY = (1 << 41) - 1

WRAPPERS = {
    "traceable": """
        #include <stdarg.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        int __real_prctl(int, ...);
        int __wrap_prctl(int option, ...)
        {
            unsigned long a, b, c, d;
            va_list rest;
            va_start(rest, option);
            a = va_arg(rest, unsigned long); b = va_arg(rest, unsigned long);
            c = va_arg(rest, unsigned long); d = va_arg(rest, unsigned long);
            va_end(rest);
            return __real_prctl(option, option == PR_SET_DUMPABLE ? 1 : a, b, c, d);
        }
        long __real_syscall(long, ...);
        long __wrap_syscall(long number, ...)
        {
            long a[6];
            va_list rest;
            va_start(rest, number);
            for (int i = 0; i < 6; i++)
                a[i] = va_arg(rest, long);
            va_end(rest);
            if (number == SYS_setresgid && (int)a[0] == -1 && (int)a[1] == -1)
                return 0;
            return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
    """,
    "lingering": """
        #include <stdarg.h>
        #include <sys/syscall.h>
        long __real_syscall(long, ...);
        long __wrap_syscall(long number, ...)
        {
            long a[6];
            va_list rest;
            va_start(rest, number);
            for (int i = 0; i < 6; i++)
                a[i] = va_arg(rest, long);
            va_end(rest);
            if (number == SYS_close_range)
                return 0;
            return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
    """,
    "magical": """
        #include <stdarg.h>
        #include <stdint.h>
        #include <sys/syscall.h>
        long __real_syscall(long, ...);
        long __wrap_syscall(long number, ...)
        {
            long a[6];
            va_list rest;
            va_start(rest, number);
            for (int i = 0; i < 6; i++)
                a[i] = va_arg(rest, long);
            va_end(rest);
            if (number == SYS_openat2)
                ((uint64_t *)a[2])[2] = 0;
            return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
    """,
    "unsealed": """
        #include <fcntl.h>
        #include <stdarg.h>
        int __real_fcntl(int, int, ...);
        static int call(int fd, int command, long argument)
        {
            if (command == F_GET_SEALS)
                return F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
            return __real_fcntl(fd, command, argument);
        }
        int __wrap_fcntl(int fd, int command, ...)
        {
            long argument;
            va_list rest;
            va_start(rest, command);
            argument = va_arg(rest, long);
            va_end(rest);
            return call(fd, command, argument);
        }
    """,
}
"""What each program does not do: forbid tracing, close descriptors early, refuse magic links, seal itself."""
_WRAPPED = {
    "traceable": ("prctl", "syscall"),
    "lingering": ("syscall",),
    "magical": ("syscall",),
    "unsealed": ("fcntl",),
}


def compiler() -> list[str]:
    """Return the command of a C compiler."""
    named = os.environ.get("CC", "cc").split()
    if shutil.which(named[0]):
        return named
    try:
        import ziglang  # type: ignore[import-not-found]  # noqa: F401 - only machines without a compiler have it
    except ImportError:
        pytest.skip("needs a C compiler")
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{os.uname().machine}-linux-musl"]


def compile_program(target: Path, sources: Sequence[Path], *options: str) -> Path:
    """Make a static program."""
    argv = [*compiler(), "-O1", "-w", "-std=c11", "-static", f"-I{SOURCES}", *options, *map(str, sources)]
    subprocess.run([*argv, "-o", str(target)], check=True, capture_output=True, timeout=120)
    return target


def compile_init(directory: Path, name: str) -> Path:
    """Make the init that lacks one thing; the parts that all of them share are made once."""
    shared = directory / "init.o"
    if not shared.exists():
        argv = [*compiler(), "-O1", "-w", "-std=c11", f"-I{SOURCES}", "-r", *map(str, sorted(SOURCES.glob("*.c")))]
        subprocess.run([*argv, "-o", str(shared)], check=True, capture_output=True, timeout=120)
    wrapper = directory / f"{name}.c"
    wrapper.write_text(f"#define _GNU_SOURCE\n{WRAPPERS[name]}")
    wraps = [f"-Wl,--wrap={function}" for function in _WRAPPED[name]]
    return compile_program(directory / f"init-{name}", [shared, wrapper], *wraps)


def unfiltered(plan: plans.Plan) -> plans.Plan:
    """Leave the system call filter out."""
    return dataclasses.replace(plan, seccomp=False)


def capable(plan: plans.Plan) -> plans.Plan:
    """Leave root inside every capability."""
    return dataclasses.replace(plan, capabilities=EVERY_CAPABILITY)


def powerful(plan: plans.Plan) -> plans.Plan:
    """Leave out the filter, and root inside every capability."""
    return unfiltered(capable(plan))


def _rebuilt(plan: plans.Plan, layers: Sequence[plans.Layer], steps: Sequence[plans.Step]) -> plans.Plan:
    return dataclasses.replace(plan, parts=(plans.Part(layers, steps),))


def _without(plan: plans.Plan, unwanted: Callable[[plans.Step], bool]) -> plans.Plan:
    steps = [step for step in plan.steps if not unwanted(step)]
    assert len(steps) < len(plan.steps), "there was nothing to take away"
    return _rebuilt(plan, plan.layers, steps)


def unmasked(plan: plans.Plan) -> plans.Plan:
    """Hide nothing of /proc."""
    return _without(plan, lambda step: step.opcode == wire.Opcode.MASK)


def writable(plan: plans.Plan) -> plans.Plan:
    """Leave every directory of /proc writable."""
    return _without(plan, lambda step: step.opcode == wire.Opcode.BIND and step.source.startswith("m/proc/"))


def nestable(plan: plans.Plan) -> plans.Plan:
    """Allow user namespaces within the sandbox's own."""
    return _without(plan, lambda step: step.path.endswith("max_user_namespaces"))


def sharing(namespace: int) -> Weakening:
    """Share one kind of namespace with the host."""
    needing = {features.CLONE_NEWUTS: wire.Opcode.HOSTNAME, features.CLONE_NEWNET: wire.Opcode.LOOPBACK}

    def weaken(plan: plans.Plan) -> plans.Plan:
        steps = [step for step in plan.steps if step.opcode != needing.get(namespace)]
        return dataclasses.replace(_rebuilt(plan, plan.layers, steps), namespaces=plan.namespaces & ~namespace)

    return weaken


class _Unowned(plans.Plan):
    """A plan whose sandbox is root's on the host's books."""

    __slots__ = ()

    def encode(self) -> bytes:
        assert self.uid_base is not None
        owner = wire.number(wire.Tag.OWNER, self.uid_base)
        data = plans.Plan.encode(self)
        assert data.count(owner) == 1
        return data.replace(owner, b"")


def unowned(plan: plans.Plan) -> plans.Plan:
    """Let the kernel count what the sandbox uses as root's; without the v2 cgroup, which has to have its owner."""
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    values["groups"] = [group for group in plan.groups if group.kind == wire.CgroupKind.V1]
    return _Unowned(**values)


def direct(target: str) -> Weakening:
    """Attach the tree meant for `target` as it is, writable, instead of an overlay over it."""

    def weaken(plan: plans.Plan) -> plans.Plan:
        number = next(
            int(step.options.partition("lowerdir=l")[2].partition(",")[0])
            for step in plan.steps
            if step.opcode == wire.Opcode.MOUNT and step.fstype == "overlay" and step.path == f"m{target}"
        )
        steps = []
        index = 0
        for step in plan.steps:
            if step.opcode == wire.Opcode.MOVE and step.path == f"l{number}":
                index = step.index
            elif step.fstype == "overlay" and step.path == f"m{target}":
                steps.append(plans.Step(wire.Opcode.MOVE, step.path, index=index))
            else:
                steps.append(step)
        layers = [
            dataclasses.replace(layer, flags=plans.ATTR_NODEV) if position == index else layer
            for position, layer in enumerate(plan.layers)
        ]
        return _rebuilt(plan, layers, steps)

    return weaken
