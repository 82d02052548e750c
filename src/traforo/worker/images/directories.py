"""The `dir:` images: a directory of the host that is the root of a sandbox as it is, read-only below the writable
layer.

It is mounted where it lies: nothing is copied, so what changes in it later may be seen by live sandboxes or not, and it
should not change. Mount points that it lacks (/proc, /dev, /sys, /tmp) are made by the runtime in the writable layer.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from traforo.domain import errors
from traforo.worker.images import manifests, paths
from traforo.worker.images.references import Reference
from traforo.worker.runtimes.contract import Lower, Rootfs

_SHELLS = ("bin/sh", "usr/bin/sh")
_PROGRAMS = ("bin", "usr/bin", "usr/local/bin", "sbin", "usr/sbin", ".")
_MAX_LOOKED_AT = 10_000


def resolve(reference: Reference, roots: paths.Roots, state_dir: Path) -> tuple[Rootfs, tuple[int, ...]]:
    """Return what a runtime mounts for a directory, and facts that change when it is replaced.

    Raises `NotFound` where it is missing or not in the roots, `InvalidRequest` where it cannot be a root directory.
    """
    directory, facts = paths.check_directory(reference.path, roots)
    state = Path(os.path.realpath(state_dir))
    if state.is_relative_to(directory) or Path(directory).is_relative_to(state):
        # Other sandboxes' files and the worker's own lie there, and root in a sandbox reads what root may read.
        raise _unusable(
            reference, "the worker's own files lie in it" if directory != "/" else "use 'host' for this host"
        )
    if set(':,\\"') & set(directory):
        raise _unusable(reference, "its real path has a colon, a comma, a quote or a backslash")
    if not _has_program(directory):
        raise _unusable(reference, "there is no program in it, neither /bin/sh nor any other")
    rootfs = Rootfs(
        image=reference.text,
        lowers=(Lower(source=directory, target="/"),),
        env={"PATH": manifests.DEFAULT_PATH},
        user="root",
    )
    return rootfs, (facts.st_dev, facts.st_ino)


def _unusable(reference: Reference, why: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"cannot use '{reference.path}' as an image: {why}", field="image")


def _has_program(directory: str) -> bool:
    """Tell, loosely, whether a directory can be the root of something that runs."""
    if any(os.path.lexists(f"{directory}/{shell}") for shell in _SHELLS):
        return True
    seen = 0
    for name in _PROGRAMS:
        try:
            with os.scandir(f"{directory}/{name}") as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o111:
                        return True
                    seen += 1
                    if seen > _MAX_LOOKED_AT:
                        return False
        except OSError:
            continue
    return False
