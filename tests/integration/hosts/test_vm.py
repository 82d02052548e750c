"""The same tests on another kernel: Debian 12's, with control groups v2 alone, in an emulated machine.

Opt in with `TRAFORO_TEST_VM=1`: the machine is made once (some minutes, Debian's packages), and each run takes minutes
more. `TRAFORO_TEST_VM_DIRECTORY` says where the machine is kept, `build/vm` otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mkfs.ext4", "busybox")
MINUTES = 45
PYTEST = ("python3", "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=600", "-v", "--color=no")

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TRAFORO_TEST_VM"), reason="asks for minutes: set TRAFORO_TEST_VM=1"),
    pytest.mark.timeout(MINUTES * 60 + 600),
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the machine, and show its console where the test fails."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no machine can be made here without {', '.join(missing)}")
    directory = os.environ.get("TRAFORO_TEST_VM_DIRECTORY") or str(ROOT / "build" / "vm")
    argv = [sys.executable, str(ROOT / "tools/vm/run.py"), f"--directory={directory}", f"--timeout={MINUTES * 60}"]
    done = subprocess.run([*argv, "--", *command], stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    sys.stdout.write(done.stdout)
    return done


def test_what_holds_here_holds_on_another_kernel() -> None:
    """Limits, layers, adoption and rootless workers; nothing that this directory tests is skipped there."""
    done = run(*PYTEST, "tests/integration/hosts", "--deselect=tests/integration/hosts/test_vm.py")
    assert "cgroup v2 with" in done.stdout
    assert done.returncode == 0
    assert " skipped" not in done.stdout


def test_the_runtime_keeps_its_contract_on_another_kernel() -> None:
    """The suite that every runtime is held to."""
    done = run(*PYTEST, "tests/contract/runtimes", "-k", "container")
    assert done.returncode == 0
