"""Directories as images."""

from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.worker.images import directories, manifests, paths, references
from traforo.worker.runtimes.contract import Lower, Rootfs

ANYWHERE = paths.Roots(None)


def program(path: Path, mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"#!")
    path.chmod(mode)


def resolve(path: Path | str, tmp_path: Path, roots: paths.Roots = ANYWHERE) -> Rootfs:
    return directories.resolve(references.parse(f"dir:{path}"), roots, tmp_path / "state")[0]


def test_is_mounted_where_it_lies(tmp_path: Path) -> None:
    """One layer, read-only below the sandbox's own; commands start as root with a PATH."""
    program(tmp_path / "image/bin/sh")
    assert resolve(tmp_path / "image", tmp_path) == Rootfs(
        image=f"dir:{tmp_path}/image",
        lowers=(Lower(f"{tmp_path}/image", "/"),),
        env={"PATH": manifests.DEFAULT_PATH},
        user="root",
        cwd=None,
    )


def test_the_resolved_path_is_mounted(tmp_path: Path) -> None:
    """So that a link that changes later does not change what was judged."""
    program(tmp_path / "image/bin/sh")
    (tmp_path / "link").symlink_to("image")
    assert resolve(tmp_path / "link", tmp_path).lowers == (Lower(f"{tmp_path}/image", "/"),)


@pytest.mark.parametrize("name", ["bin/sh", "usr/bin/sh", "usr/local/bin/tool", "sbin/init", "hello"])
def test_one_program_is_enough(name: str, tmp_path: Path) -> None:
    """A static program alone is an image."""
    program(tmp_path / "image" / name)
    assert resolve(tmp_path / "image", tmp_path).user == "root"


def test_a_shell_that_is_a_link_is_enough(tmp_path: Path) -> None:
    """It may be absolute, and then leads somewhere inside the image only."""
    (tmp_path / "image/bin").mkdir(parents=True)
    (tmp_path / "image/bin/sh").symlink_to("/bin/busybox-of-the-image")
    assert resolve(tmp_path / "image", tmp_path).user == "root"


def test_what_nothing_can_run_in_is_refused(tmp_path: Path) -> None:
    """Empty, or files that are no programs."""
    program(tmp_path / "image/bin/data", 0o644)
    with pytest.raises(errors.InvalidRequest, match="no program"):
        resolve(tmp_path / "image", tmp_path)


@pytest.mark.parametrize("name", ["state", "state/images", "."])
def test_the_workers_own_files_are_no_image(name: str, tmp_path: Path) -> None:
    """Nor what they lie in: root of a sandbox would read what belongs to others."""
    program(tmp_path / "bin/sh")
    program(tmp_path / "state/bin/sh")
    program(tmp_path / "state/images/bin/sh")
    (tmp_path / "link").symlink_to("state")
    with pytest.raises(errors.InvalidRequest, match="own files"):
        resolve(tmp_path / name, tmp_path)
    with pytest.raises(errors.InvalidRequest, match="own files"):
        resolve(tmp_path / "link", tmp_path)


def test_the_root_of_the_host_is_no_image(tmp_path: Path) -> None:
    """Its /etc/shadow would be readable inside."""
    with pytest.raises(errors.InvalidRequest, match="use 'host'"):
        resolve("/", tmp_path)


def test_links_to_paths_with_a_meaning_in_mount_options(tmp_path: Path) -> None:
    """A reference cannot have them; what it resolves to must not have them either."""
    program(tmp_path / "a:b/bin/sh")
    (tmp_path / "link").symlink_to("a:b")
    with pytest.raises(errors.InvalidRequest, match="colon"):
        resolve(tmp_path / "link", tmp_path)


def test_roots_hold(tmp_path: Path) -> None:
    """A link out of the roots is not followed; without roots nothing is an image."""
    program(tmp_path / "roots/image/bin/sh")
    program(tmp_path / "other/bin/sh")
    (tmp_path / "roots/link").symlink_to("../other")
    roots = paths.Roots.of([tmp_path / "roots"])
    assert resolve(tmp_path / "roots/image", tmp_path, roots).user == "root"
    for path in ("roots/link", "other", "roots/missing"):
        with pytest.raises(errors.NotFound):
            resolve(tmp_path / path, tmp_path, roots)
    with pytest.raises(errors.NotFound):
        resolve(tmp_path / "roots/image", tmp_path, paths.Roots.of([]))
