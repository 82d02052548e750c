#!/usr/bin/env python3
"""Run a command on another kernel: in an emulated machine with nothing but cgroup v2 and this working tree.

    tools/vm/run.py [--directory build/vm] [--timeout 1800] -- python3 -m traforo.cli doctor

The machine is made by `tools/vm/build`. It has one processor, 2 GiB of memory, no network but loopback, and forgets
everything at its end; the tree is at /project, read-only, with the Python packages of the environment that runs this
script. What it says on its console is printed as it comes. The exit code is that of the command, or 125 if there is
none to tell.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TREE = ("pyproject.toml", "src", "tests", "tools")
LEFT_OUT = shutil.ignore_patterns("*mypy*", "ruff*", "uv", "uv-*", "pip", "setuptools", "hatchling", "grimp", "torch*")
"""Packages that check or build, and are large: nothing in the machine needs them."""
SLACK_MIB = 64
NO_ANSWER = 125
_EXIT = re.compile(rb"(?m)^vm: exit (\d+)\r?$")


def pack(directory: Path, command: str) -> Path:
    """Make the disk with the tree, the Python packages and the command."""
    tree = directory / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, symlinks=True, ignore=ignored)
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy2(source, tree / name)
    shutil.copytree(sysconfig.get_path("purelib"), tree / "site-packages", symlinks=True, ignore=LEFT_OUT)
    (tree / "command").write_text(command + "\n")
    size = sum(path.lstat().st_size for path in tree.rglob("*")) >> 20
    disk = directory / "project.ext4"
    options = ("-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "60000", "-E", "root_owner=0:0")
    subprocess.run(["mkfs.ext4", *options, "-d", str(tree), str(disk), f"{2 * size + SLACK_MIB}M"], check=True)
    shutil.rmtree(tree)
    return disk


def emulator(machine: Path, disk: Path) -> list[str]:
    """Return how the machine is started. No acceleration is asked for: any host will do."""
    drives = [(machine / "root.ext4", "snapshot=on"), (disk, "readonly=on")]
    shown = [("-drive", f"file={path},format=raw,if=virtio,{options}") for path, options in drives]
    return [
        *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "1", "-m", "2048"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(machine / "vmlinuz"), "-initrd", str(machine / "initrd.gz")),
        *("-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off random.trust_cpu=on"),
        *(word for pair in shown for word in pair),
    ]


def boot(argv: list[str], timeout: float) -> int:
    """Start the machine, print its console, and return the exit code that the command had in it."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None  # noqa: S101 - what PIPE asked for
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    said = b""
    try:
        while piece := os.read(process.stdout.fileno(), 65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            said = (said + piece)[-65536:]
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
    found = _EXIT.findall(said)
    return int(found[-1]) if found else NO_ANSWER


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "vm", help="of the machine")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds until it is switched off")
    parser.add_argument("command", nargs="+", help="what to run in it")
    options = parser.parse_args()
    if shutil.which("qemu-system-x86_64") is None:
        print("tools/vm/run.py: needs qemu-system-x86", file=sys.stderr)
        return NO_ANSWER
    os.nice(10)
    if subprocess.run([HERE / "build", options.directory], check=False).returncode:
        return NO_ANSWER
    with tempfile.TemporaryDirectory(prefix="traforo-vm-", dir=options.directory) as directory:
        disk = pack(Path(directory), shlex.join(options.command))
        return boot(emulator(options.directory, disk), options.timeout)


if __name__ == "__main__":
    sys.exit(main())
