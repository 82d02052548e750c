"""Images made of the distribution's own files, held against what other programs make of the same bytes."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tools import make_test_image as images
from traforo.worker.images import trees, unpackers
from traforo.worker.images.limits import Limits
from traforo.worker.images.stores import ImageStore
from traforo.worker.runtimes.contract import Rootfs

ROOT = os.geteuid() == 0


def resolve(reference: str, state: Path, roots: list[Path] | None = None) -> Rootfs:
    """Resolve one reference as a worker of its own."""

    async def once() -> Rootfs:
        store = ImageStore(state, roots)
        try:
            return await store.resolve(reference)
        finally:
            await store.close()

    return asyncio.run(once())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small image in all its forms."""
    directory = tmp_path_factory.mktemp("small")
    try:
        images.make_small(directory)
    except images.MissingError as error:
        pytest.skip(f"needs busybox-static: {error}")
    return directory


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything a file system can hold and real files in it."""
    root = tmp_path_factory.mktemp("tree") / "tree"
    for source in (
        "/usr/share/perl5",
        "/usr/share/zoneinfo/Europe",
        "/usr/share/locale/de",
        "/usr/lib/python3/dist-packages",
    ):
        if Path(source).is_dir():
            shutil.copytree(source, root / source[1:], symlinks=True)
    odd = root / "odd"
    odd.mkdir(parents=True)
    (odd / "empty").touch()
    (odd / ("long-" * 40)).write_text("x")
    deep = odd.joinpath(*["directory"] * 30)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (odd / "ä\n\t ").write_text("named oddly")
    Path(os.fsdecode(os.fsencode(odd) + b"/\xff\xfe")).write_text("not UTF-8")
    (odd / "setuid").write_text("s")
    (odd / "setuid").chmod(0o4711)
    (odd / "sticky").mkdir(mode=0o1777)
    (odd / "sticky").chmod(0o1777)
    os.link(odd / "setuid", odd / "hard")
    (odd / "dangling").symlink_to("/nowhere/" + "x" * 150)
    os.link(odd / "dangling", odd / "hard-link-of-link", follow_symlinks=False)
    (odd / "large").write_bytes(os.urandom(3_000_001))
    os.utime(odd / "large", ns=(1, 1_234_567_890_123_456_789))
    if ROOT:
        os.chown(odd / "empty", 1000, 65535)
    return root


def facts(root: Path, *, nanoseconds: bool) -> dict[str, tuple[object, ...]]:
    """Return everything there is to know about a tree, hard links by the first of their names."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        changed = status.st_mtime_ns if nanoseconds else status.st_mtime_ns // 10**9
        same_as = first.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, changed, content, same_as)
    return found


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
@pytest.mark.parametrize("form", ["gnu", "pax", "posix"])
def test_gives_back_what_gnu_tar_packed(form: str, tree: Path, tmp_path: Path) -> None:
    """Every mode, owner, time, content, link and name, to the nanosecond where the format has it."""
    if shutil.which("tar") is None:
        pytest.skip("needs tar")
    argv = ["tar", f"--format={form}", "--sort=name", "--numeric-owner", "-C", str(tree), "-cf", "-", "."]
    data = subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout
    root = tmp_path / "root"
    root.mkdir()
    made = trees.Tree(Limits())
    with unpackers.Unpacker(root, privileged=True) as unpacker:
        unpackers.unpack_layer(io.BytesIO(data), made, unpacker)
        for path, metadata in made.directories():
            unpacker.finish_directory(path, metadata)
    nanoseconds = form != "gnu"
    assert facts(root, nanoseconds=nanoseconds) == facts(tree, nanoseconds=nanoseconds)


@pytest.mark.parametrize(
    "form", ["oci-layout:{}/layout", "oci-archive:{}/oci.tar:latest", "docker-archive:{}/docker.tar.gz"]
)
def test_the_small_image_runs(form: str, small: Path, tmp_path: Path) -> None:
    """In each form: its program runs, its second layer replaced, linked and hid what it should."""
    rootfs = resolve(form.format(small), tmp_path / "state", [small])
    root = Path(rootfs.lowers[0].source)
    assert (rootfs.user, rootfs.cwd, rootfs.env["GREETING"]) == ("app", "/app", "hello")
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())
    done = subprocess.run([busybox, "echo", "it runs"], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout == "it runs\n"
    assert (busybox.parent / "ls").readlink() == Path("busybox")
    assert "app:x:1000" in (root / "etc/passwd").read_text()
    assert (root / "app/hello").stat().st_ino == (root / "app/hello-again").stat().st_ino
    assert not (root / "usr/share/doc").exists()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE(root.parent.parent.stat().st_mode) == 0o700


def test_the_host_image_has_no_secret_of_this_host(tmp_path: Path) -> None:
    """No file of /etc that not everybody may read is in it, under whatever name, nor what makes this host known."""
    rootfs = resolve("host", tmp_path / "state")
    root = Path(rootfs.lowers[0].source)
    shown = {path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    secrets = [
        path
        for path in Path("/etc").rglob("*")
        if path.is_file() and not path.is_symlink() and not path.stat().st_mode & 0o004 and os.access(path, os.R_OK)
    ]
    assert [path for path in secrets if path.stat().st_size and path.read_bytes() in shown] == []
    assert not (root / "etc/machine-id").exists()
    assert (root / "etc/resolv.conf").read_bytes() == b""
    assert not any(root.joinpath(name).exists() for name in ("etc/ssh", "etc/ssl/private", "etc/gitconfig"))
    assert sorted(path.name for path in (root / "home").iterdir()) == ["user"]
    assert [
        path for path in root.rglob("*") if path.is_symlink() and str(path.readlink()).startswith(("/root", "/home"))
    ] == []


MOUNTED = """
    set -eu
    mount -t tmpfs tmpfs "$2"
    mkdir "$2/upper" "$2/work" "$2/merged"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
    mount --bind /usr "$2/merged/usr"
    mount --bind /dev "$2/merged/dev"
    mount -t proc proc "$2/merged/proc"
    exec chroot "$2/merged" /usr/bin/env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 /bin/sh -c "$3"
"""


def run_in(root: str, scratch: Path, script: str) -> str:
    """Return what a script printed with the host image as its root. Skips where this host cannot mount."""
    if not ROOT or shutil.which("unshare") is None or not Path("/bin").is_symlink():
        pytest.skip("only root mounts, and this small mount script expects a merged /usr")
    scratch.mkdir()
    base = ["unshare", "--mount", "--pid", "--fork", "sh", "-c"]
    probe = subprocess.run([*base, "mount -t tmpfs tmpfs /mnt"], check=False, capture_output=True, timeout=10)
    if probe.returncode != 0:
        pytest.skip("this host does not let root mount")
    argv = [*base, textwrap.dedent(MOUNTED), "sh", root, str(scratch), script]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


def test_programs_run_in_the_host_image(tmp_path: Path) -> None:
    """They find their libraries, the accounts, their own part of /etc; root can become the user, nobody root."""
    rootfs = resolve("host", tmp_path / "state")
    script = """
        id -un; ls /root; cat /etc/hostname
        as_user='id -u; echo $HOME; su root -c "echo reached" 2>/dev/null </dev/null'
        command -v su >/dev/null && su user -c "$as_user" || true
        python=/usr/bin/python3
        if [ -x $python ]; then $python -c 'import ssl; print("python", bool(ssl.create_default_context()))'; fi
        if command -v perl >/dev/null; then perl -e 'use Config; print "perl\\n"'; fi
        if command -v awk >/dev/null; then awk 'BEGIN { print "awk" }'; fi
    """
    printed = run_in(rootfs.lowers[0].source, tmp_path / "mnt", textwrap.dedent(script)).splitlines()
    assert printed[:2] == ["root", "sandbox"]
    if shutil.which("su", path="/usr/bin"):
        assert printed[2:4] == ["1000", "/home/user"]
    assert "reached" not in printed
    if os.access("/usr/bin/python3", os.X_OK):
        assert "python True" in printed


def test_a_worker_killed_while_it_unpacks(tmp_path: Path) -> None:
    """Leaves nothing that could be taken for an image, and the next one makes it whole."""
    source = tmp_path / "source"
    for number in range(1500):
        path = source / str(number % 50) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    layers = [images.layer_of(source)]
    images.write_archive(tmp_path / "a.tar", images.docker_files(layers, images.config_of(layers), name="a:1"))
    reference = f"docker-archive:{tmp_path}/a.tar"
    script = "import asyncio, sys; from traforo.worker.images.stores import ImageStore\n"
    script += "asyncio.run(ImageStore(sys.argv[1], None).resolve(sys.argv[2]))"
    argv = [sys.executable, "-c", script, str(tmp_path / "state"), reference]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    for _ in range(10_000):
        # Two directories deep: the root file system is being filled.
        if any((tmp_path / "state/images").glob(".making-*/rootfs/1*/*")) or process.poll() is not None:
            break
        threading.Event().wait(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "state/images").iterdir()]
    assert left
    assert all(name.startswith(".making-") for name in left)

    root = Path(resolve(reference, tmp_path / "state").lowers[0].source)
    assert sorted(int(path.name) for path in root.glob("[0-9]*/*")) == list(range(1500))
    assert [path.name for path in (tmp_path / "state/images").iterdir()] == [root.parent.name]


def test_a_layer_of_an_incompressible_file_and_one_of_zeros(tmp_path: Path) -> None:
    """Both ends of what compression does pass: 2 MiB of noise, 32 MiB of nothing."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "noise").write_bytes(os.urandom(2 * 1024 * 1024))
    with (source / "zeros").open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    layers = [images.layer_of(source)]
    assert len(gzip.compress(layers[0], compresslevel=1)) < 3 * 1024 * 1024
    images.write_directory(tmp_path / "layout", images.oci_files(layers, images.config_of(layers)))

    rootfs = resolve(f"oci-layout:{tmp_path}/layout", tmp_path / "state", [tmp_path / "layout"])
    root = Path(rootfs.lowers[0].source)
    assert (root / "noise").read_bytes() == (source / "noise").read_bytes()
    assert (root / "zeros").stat().st_size == 32 * 1024 * 1024
