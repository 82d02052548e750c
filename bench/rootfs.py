"""The root file system that every contender gets: one static program of the distribution under all its names.

Small on purpose. What is measured is making a sandbox, not reading an image; and a rootfs of one file that is in the
page cache after the first round is the same work for everybody.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.contenders import UnavailableError

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n"
_GROUP = "root:x:0:\nuser:x:1000:\n"


def build(target: Path) -> Path:
    """Make the root file system at `target`, which must not exist, readable for everybody; return it."""
    busybox = _static_busybox()
    for name in _DIRECTORIES:
        (target / name).mkdir(parents=True)
    (target / "tmp").chmod(0o1777)
    (target / "etc" / "passwd").write_text(_PASSWD)
    (target / "etc" / "group").write_text(_GROUP)
    program = target / "bin" / "busybox"
    shutil.copy(busybox, program)
    program.chmod(0o755)
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout
    for applet in applets.split():
        if applet != "busybox":
            (target / "bin" / applet).symlink_to("busybox")
    return target


def _static_busybox() -> Path:
    hint = "bench/install-peers installs it (Debian: busybox-static)"
    found = shutil.which("busybox")
    if found is None:
        raise UnavailableError("no busybox for the root file system", hint=hint)
    path = Path(found).resolve()
    # PT_INTERP names the dynamic loader; a static program has none.
    if b"/ld-" in path.read_bytes()[:4096]:
        raise UnavailableError("busybox is not static, so it cannot stand alone in a root file system", hint=hint)
    return path
