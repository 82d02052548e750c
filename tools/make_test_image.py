#!/usr/bin/env python3
"""Makes real images for tests, out of what the distribution has: no registry and no container tool is needed.

    tools/make_test_image.py small <directory>    a few hundred files: static busybox, base files, a second layer
    tools/make_test_image.py debian <directory>   a Debian with apt, made by mmdebstrap or debootstrap (root, network)

Both write the same image in three forms: `layout/` (an OCI image layout), `oci.tar` (that in a tar file) and
`docker.tar.gz` (as `docker save` writes it). The functions that write them serve tests that make their own layers.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAG = "latest"
NAME = "traforo/test"
_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}


class MissingError(Exception):
    """This machine lacks what an image is made of."""


def architecture() -> str:
    """Return the OCI name of this machine's architecture."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True)
class Blob:
    """Bytes with their digest."""

    data: bytes

    @property
    def hex(self) -> str:
        """Return the sha256 in hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    def descriptor(self, media_type: str, **more: object) -> dict[str, object]:
        """Return what points at the blob."""
        return {"mediaType": media_type, "digest": f"sha256:{self.hex}", "size": len(self.data), **more}


def config_of(layers: Sequence[bytes], process: Mapping[str, object] | None = None, **more: object) -> dict[str, Any]:
    """Return the config of an image made of these unpacked layers; `more` replaces members."""
    return {
        "architecture": architecture(),
        "os": "linux",
        "config": dict(process or {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{Blob(layer).hex}" for layer in layers]},
        **more,
    }


def document(value: object) -> Blob:
    """Return a JSON document as a blob."""
    return Blob(json.dumps(value).encode())


def packed(layer: bytes) -> bytes:
    """Return a layer as gzip, the same each time."""
    return gzip.compress(layer, compresslevel=6, mtime=0)


def oci_files(
    layers: Sequence[bytes], config: Mapping[str, object], *, tag: str = TAG, compress: bool = True
) -> dict[str, bytes]:
    """Return the files of an OCI layout with one image, by name."""
    suffix = "tar+gzip" if compress else "tar"
    blobs = [Blob(packed(layer) if compress else layer) for layer in layers]
    configured = document(config)
    manifest = document(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": configured.descriptor(f"{_OCI}.config.v1+json"),
            "layers": [blob.descriptor(f"{_OCI}.layer.v1.{suffix}") for blob in blobs],
        }
    )
    named = manifest.descriptor(
        f"{_OCI}.manifest.v1+json",
        annotations={"org.opencontainers.image.ref.name": tag},
        platform={"architecture": config.get("architecture", ""), "os": "linux"},
    )
    index = document({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [named]})
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index.data}
    return files | {f"blobs/sha256/{blob.hex}": blob.data for blob in (*blobs, configured, manifest)}


def docker_files(layers: Sequence[bytes], config: Mapping[str, object], *, name: str) -> dict[str, bytes]:
    """Return the members of a `docker save` archive with one image, by name."""
    configured = document(config)
    members = {f"{configured.hex}.json": configured.data}
    names = []
    for layer in layers:
        names.append(f"{Blob(layer).hex}/layer.tar")
        members[names[-1]] = layer
    manifest = [{"Config": f"{configured.hex}.json", "RepoTags": [name], "Layers": names}]
    return members | {"manifest.json": document(manifest).data}


def write_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a directory."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_archive(path: Path, files: Mapping[str, bytes], *, compress: bool = False) -> None:
    """Write files into a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    path.write_bytes(packed(data) if compress else data)


def layer_of(directory: Path, *, whiteouts: Sequence[str] = ()) -> bytes:
    """Return a layer with everything below a directory, owned by root, and whiteouts beside."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(directory, arcname=".", filter=_owned_by_root)
        for name in whiteouts:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def write_image(
    directory: Path, layers: Sequence[bytes], process: Mapping[str, object], *, docker_name: str = f"{NAME}:{TAG}"
) -> None:
    """Write one image in all three forms."""
    directory.mkdir(parents=True, exist_ok=True)
    config = config_of(layers, process)
    layout = oci_files(layers, config)
    write_directory(directory / "layout", layout)
    write_archive(directory / "oci.tar", layout)
    write_archive(directory / "docker.tar.gz", docker_files(layers, config, name=docker_name), compress=True)


def make_small(directory: Path) -> None:
    """Make the small image. Raises `MissingError`."""
    with tempfile.TemporaryDirectory() as scratch:
        base, upper = Path(scratch, "base"), Path(scratch, "upper")
        for package in ("busybox-static", "base-files"):
            extract_package(package, base)
        program = next((path for path in (base / "bin/busybox", base / "usr/bin/busybox") if path.exists()), None)
        if program is None:
            raise MissingError("the package busybox-static has no busybox")
        applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout
        for applet in applets.split():
            if applet != "busybox":
                (program.parent / applet).symlink_to("busybox")
        (base / "etc").mkdir(exist_ok=True)
        (base / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (base / "etc/group").write_text("root:x:0:\n")
        (base / "tmp").mkdir(exist_ok=True)
        (base / "tmp").chmod(0o1777)
        write_image(directory, [layer_of(base), _second_layer(upper)], _process())


def _second_layer(directory: Path) -> bytes:
    """Return a layer with what a layer can do to those below: replace, hide, link."""
    (directory / "etc").mkdir(parents=True)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/app:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    (directory / "app").mkdir()
    hello = directory / "app/hello"
    hello.write_text("#!/bin/sh\necho hello from the image\n")
    hello.chmod(0o755)
    os.link(hello, directory / "app/hello-again")
    return layer_of(directory, whiteouts=("usr/share/.wh.doc",))


def _process() -> dict[str, object]:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"Env": [path, "GREETING=hello"], "User": "app", "WorkingDir": "/app"}


def extract_package(package: str, target: Path) -> None:
    """Put the files of a Debian package below `target`: from this host if it is installed, else downloaded.

    Raises `MissingError`.
    """
    listing = _run(["dpkg", "-L", package])
    if listing is not None:
        for name in listing.splitlines():
            _copy(Path(name), target / name.lstrip("/"))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if _run(["apt-get", "download", "-qq", package], cwd=scratch) is None:
            raise MissingError(f"the package {package} is not installed and cannot be downloaded")
        for archive in Path(scratch).glob("*.deb"):
            if _run(["dpkg-deb", "-x", str(archive), str(target)]) is None:
                raise MissingError(f"cannot unpack {archive.name}")


def _copy(source: Path, target: Path) -> None:
    """Copy one file, link or directory of a package, without what lies below a directory."""
    if source.is_symlink():
        # A directory of the package may be a link on this host (/bin where /usr is merged).
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def make_debian(directory: Path, *, suite: str, include: Sequence[str]) -> None:
    """Make an image of a whole Debian with its package manager. Raises `MissingError`."""
    tool = shutil.which("mmdebstrap") or shutil.which("debootstrap")
    if tool is None:
        raise MissingError("neither mmdebstrap nor debootstrap is installed")
    options = ["--variant=minbase", *([f"--include={','.join(include)}"] if include else [])]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        subprocess.run([tool, *options, suite, str(root)], check=True, timeout=1800, stdout=sys.stderr)
        # Owners matter here, so GNU tar reads the tree as it is.
        layer = subprocess.run(
            ["tar", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", "-", "."],
            check=True,
            capture_output=True,
            timeout=600,
        ).stdout
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    write_image(directory, [layer], {"Env": [path, "DEBIAN_FRONTEND=noninteractive"]}, docker_name=f"debian:{suite}")


def _run(argv: Sequence[str], cwd: str | None = None) -> str | None:
    """Return what a command printed; None if it failed or is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300, cwd=cwd)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("kind", choices=("small", "debian"))
    parser.add_argument("directory", type=Path, help="where to write layout/, oci.tar and docker.tar.gz")
    parser.add_argument("--suite", default="stable", help="Debian release (default: stable)")
    parser.add_argument("--include", default="", help="further packages, with commas between")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.kind == "small":
            make_small(chosen.directory)
        else:
            include = [package for package in chosen.include.split(",") if package]
            make_debian(chosen.directory, suite=chosen.suite, include=include)
    except (MissingError, OSError, subprocess.SubprocessError) as error:
        print(f"error: cannot make the image: {error}", file=sys.stderr)
        return 1
    path = chosen.directory.absolute()
    print(f"oci-layout:{path}/layout\noci-archive:{path}/oci.tar\ndocker-archive:{path}/docker.tar.gz")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
