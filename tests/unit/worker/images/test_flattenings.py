"""Whole images: from layouts and archives to one directory, every digest verified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import tar_streams as tar
from tools import make_test_image as images
from traforo.domain import errors
from traforo.worker.images import flattenings, layouts, manifests, paths, references
from traforo.worker.images.budgets import Budget
from traforo.worker.images.limits import Limits

ANYWHERE = paths.Roots(None)
HERE = manifests.platform_of(os.uname().machine)

BASE = tar.stream(
    tar.directory(b"etc"),
    tar.file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/app:/bin/sh\n"),
    tar.file(b"etc/group", b"root:x:0:\nstaff:x:50:app\n"),
    tar.file(b"bin/sh", b"#!", mode=0o755),
    tar.file(b"old", b"old"),
)
UPPER = tar.stream(tar.file(b".wh.old"), tar.file(b"new", b"new"))
LAYERS = [BASE, UPPER]
PROCESS = {"Env": ["A=b"], "User": "app:staff", "WorkingDir": "app/dir"}

Files = dict[str, bytes]


@contextlib.contextmanager
def opened(kind: str, files: Mapping[str, bytes], tmp_path: Path, limits: Limits) -> Iterator[layouts.Parts]:
    """Give the parts of an image in one of the forms that exist."""
    budget = Budget(limits, stop=threading.Event(), free_bytes=lambda: 2**40)
    if kind == "oci-layout":
        images.write_directory(tmp_path / "layout", files)
        yield layouts.Directory(str(tmp_path / "layout"), ANYWHERE)
        return
    path = tmp_path / "archive.tar"
    images.write_archive(path, files, compress=kind.endswith("gzip"))
    with layouts.archive(str(path), ANYWHERE, budget, tmp_path) as parts:
        yield parts


def files_of(kind: str, layers: list[bytes] | None = None, config: Mapping[str, Any] | None = None) -> Files:
    layers = LAYERS if layers is None else layers
    config = images.config_of(layers, PROCESS) if config is None else config
    if kind.startswith("docker"):
        return images.docker_files(layers, config, name="app:1")
    return images.oci_files(layers, config, compress=not kind.endswith("plain"))


KINDS = ["oci-layout", "oci-layout plain", "oci-archive", "oci-archive gzip", "docker-archive", "docker-archive gzip"]


def flatten(
    kind: str, files: Mapping[str, bytes], tmp_path: Path, *, name: str = "", limits: Limits | None = None
) -> tuple[flattenings.Image, flattenings.Flattened, Path]:
    limits = limits or Limits()
    form = kind.split(maxsplit=1)[0]
    reference = references.parse(f"{form}:/image{name}")
    root = tmp_path / "root"
    root.mkdir()
    budget = Budget(limits, stop=threading.Event(), free_bytes=lambda: 2**40)
    with opened("oci-layout" if form == "oci-layout" else kind, files, tmp_path, limits) as parts:
        image = flattenings.read(parts, reference, HERE, limits)
        return image, flattenings.flatten(image, parts, root, budget, privileged=os.geteuid() == 0), root


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_same_tree(kind: str, tmp_path: Path) -> None:
    """Layers applied in order, what a sandbox needs added, user and directory as the config says."""
    config = images.config_of(LAYERS, PROCESS)
    image, made, root = flatten(kind, files_of(kind), tmp_path)
    made_by_layers = {"bin", "bin/sh", "etc", "etc/group", "etc/passwd", "new"}
    added = {"dev", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "run", "sys", "tmp", "app", "app/dir"}
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == made_by_layers | added
    assert (root / "new").read_text() == "new"
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert image.key == hashlib.sha256(json.dumps(config).encode()).hexdigest()
    assert image.env == {"A": "b", "PATH": manifests.DEFAULT_PATH}
    assert image.cwd == "/app/dir"
    assert made.user == "1000:50"
    assert made.bytes == sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) + len(b"old")


def test_digests_of_sha512(tmp_path: Path) -> None:
    """The other algorithm of the specification is verified as well."""
    files = files_of("oci-layout")
    index = json.loads(files["index.json"])
    manifest = files.pop("blobs/sha256/" + index["manifests"][0]["digest"].split(":")[1])
    digest = hashlib.sha512(manifest).hexdigest()
    index["manifests"][0]["digest"] = f"sha512:{digest}"
    files |= {"index.json": json.dumps(index).encode(), f"blobs/sha512/{digest}": manifest}
    _, made, _ = flatten("oci-layout", files, tmp_path)
    assert made.bytes > 0


def test_an_index_in_an_index(tmp_path: Path) -> None:
    """Images for several machines; the variant of this one is taken. Without end it is refused."""
    files = files_of("oci-layout")
    index = json.loads(files["index.json"])
    foreign = {
        **index["manifests"][0],
        "platform": {"os": "linux", "architecture": "vax"},
        "digest": "sha256:" + "0" * 64,
    }
    for nested in range(4):
        inner = images.document({"schemaVersion": 2, "manifests": [foreign, *index["manifests"]]})
        files[f"blobs/sha256/{inner.hex}"] = inner.data
        index["manifests"] = [inner.descriptor("application/vnd.oci.image.index.v1+json")]
        files["index.json"] = json.dumps(index).encode()
        where = tmp_path / str(nested)
        where.mkdir()
        if nested < 2:
            assert (flatten("oci-layout", files, where)[2] / "new").exists()
        else:
            with pytest.raises(errors.InvalidRequest, match="nested too deep"):
                flatten("oci-layout", files, where)


def blob_of(files: Files, content: bytes) -> str:
    return next(name for name, data in files.items() if data == content)


def changed_layer(files: Files) -> None:
    name = blob_of(files, images.packed(UPPER))
    files[name] = images.packed(UPPER.replace(b"new", b"bad"))


def changed_layer_of_the_same_size(files: Files) -> None:
    name = blob_of(files, images.packed(UPPER))
    # A byte of the header that decompression ignores: only the digest of the packed form sees it.
    files[name] = files[name][:4] + b"\x01" + files[name][5:]


def cut_layer(files: Files) -> None:
    name = blob_of(files, images.packed(UPPER))
    files[name] = files[name][:-1]


def missing_layer(files: Files) -> None:
    del files[blob_of(files, images.packed(UPPER))]


def _manifest_name(files: Files) -> str:
    digest: str = json.loads(files["index.json"])["manifests"][0]["digest"]
    return "blobs/sha256/" + digest.split(":")[1]


def changed_manifest(files: Files) -> None:
    files[_manifest_name(files)] += b" "


def changed_config(files: Files) -> None:
    config = json.loads(files[_manifest_name(files)])["config"]["digest"].split(":")[1]
    files[f"blobs/sha256/{config}"] = files[f"blobs/sha256/{config}"].replace(b"A=b", b"A=c")


def another_size(files: Files) -> None:
    index = json.loads(files["index.json"])
    index["manifests"][0]["size"] += 1
    files["index.json"] = json.dumps(index).encode()


def no_index(files: Files) -> None:
    del files["index.json"]


@pytest.mark.parametrize("kind", ["oci-layout", "oci-archive"])
@pytest.mark.parametrize(
    "damage, why",
    [
        (changed_layer, "has .* bytes, not|does not have its digest"),
        (changed_layer_of_the_same_size, "does not have its digest"),
        (cut_layer, "bytes, not"),
        (missing_layer, "it has no 'blobs/"),
        (changed_manifest, "does not have its digest and size"),
        (changed_config, "does not have its digest and size"),
        (another_size, "does not have its digest and size"),
        (no_index, "it has no 'index.json'"),
    ],
)
def test_damaged_layouts_are_refused(damage: Callable[[Files], None], why: str, kind: str, tmp_path: Path) -> None:
    """Nothing is taken whose digest or size is another."""
    files = files_of(kind)
    damage(files)
    with pytest.raises(errors.InvalidRequest, match=why):
        flatten(kind, files, tmp_path)


def test_an_unpacked_form_that_the_config_does_not_name_is_refused(tmp_path: Path) -> None:
    """The packed digest alone would let two contents share one config, and so one prepared tree."""
    config = images.config_of([BASE, BASE], PROCESS)
    for kind in ("oci-layout", "docker-archive"):
        where = tmp_path / kind
        where.mkdir()
        with pytest.raises(errors.InvalidRequest, match="digest that the config names"):
            flatten(kind, files_of(kind, LAYERS, config), where)


@pytest.mark.parametrize(
    "config, why",
    [
        (images.config_of([BASE], PROCESS), "2 layers and digests for 1"),
        (images.config_of(LAYERS, PROCESS, architecture="vax"), "vax"),
        (images.config_of(LAYERS, {"User": "nobody:here"}), "not in its own /etc/passwd"),
        (images.config_of(LAYERS, {"User": "a b"}), "user"),
        (images.config_of(LAYERS, {"Env": ["A"]}), "environment"),
        ({"rootfs": {"diff_ids": ["sha256:0"] * 2}}, "neither sha256"),
        ([], "malformed"),
    ],
)
def test_wrong_configs_are_refused(config: Any, why: str, tmp_path: Path) -> None:
    """Before or while anything is unpacked, with what is wrong."""
    with pytest.raises(errors.InvalidRequest, match=why):
        flatten("docker-archive", files_of("docker-archive", LAYERS, config), tmp_path)


def test_images_without_layers_or_with_too_many_are_refused(tmp_path: Path) -> None:
    """Nothing could run in the first, and the second would take for ever."""
    with pytest.raises(errors.InvalidRequest, match="it has 0 layers"):
        flatten("docker-archive", files_of("docker-archive", []), tmp_path)
    (tmp_path / "many").mkdir()
    with pytest.raises(errors.InvalidRequest, match="between 1 and 1"):
        flatten("docker-archive", files_of("docker-archive"), tmp_path / "many", limits=Limits(layers=1))


def test_documents_have_a_limit(tmp_path: Path) -> None:
    """An index of gigabytes is not read into memory."""
    with pytest.raises(errors.TooLarge):
        flatten("oci-layout", files_of("oci-layout"), tmp_path, limits=Limits(document_bytes=100))


def test_the_size_of_the_image_has_a_limit(tmp_path: Path) -> None:
    """Of all layers together, unpacked."""
    limits = Limits(unpacked_bytes=len(BASE) + len(UPPER) - 1)
    with pytest.raises(errors.TooLarge, match="larger than"):
        flatten("oci-layout", files_of("oci-layout"), tmp_path, limits=limits)


def test_an_archive_has_a_limit_of_members(tmp_path: Path) -> None:
    """Before its documents are read."""
    with pytest.raises(errors.TooLarge, match="members"):
        flatten("oci-archive", files_of("oci-archive"), tmp_path, limits=Limits(members=3))


def test_a_packed_archive_that_is_a_bomb(tmp_path: Path) -> None:
    """The scratch file does not fill the disk."""
    limits = Limits(unpacked_bytes=100_000)
    path = tmp_path / "bomb.tar"
    path.write_bytes(images.packed(bytes(1_000_000)))
    budget = Budget(limits, stop=threading.Event(), free_bytes=lambda: 2**40)
    with (
        pytest.raises(errors.TooLarge, match="larger than"),
        layouts.archive(str(path), ANYWHERE, budget, tmp_path),
    ):
        raise AssertionError("it was opened")
    assert [one.name for one in tmp_path.iterdir()] == ["bomb.tar"]


def test_links_between_members_as_old_docker_wrote_them(tmp_path: Path) -> None:
    """A layer that is there twice was written once, the other time as a link to it."""
    hexes = [images.Blob(layer).hex for layer in (BASE, UPPER)]
    config = images.document(images.config_of([BASE, UPPER, UPPER], PROCESS))
    names = [f"{hexes[0]}/layer.tar", f"{hexes[1]}/layer.tar", "again/layer.tar"]
    manifest = images.document([{"Config": f"{config.hex}.json", "RepoTags": None, "Layers": names}])
    archive = tar.stream(
        _member(names[0], BASE),
        _member(names[1], UPPER),
        tar.symlink(b"again/layer.tar", f"../{names[1]}".encode()),
        tar.symlink(b"loop", b"loop"),
        tar.symlink(b"out", b"../../etc/passwd"),
        _member(f"{config.hex}.json", config.data),
        _member("manifest.json", manifest.data),
    )
    path = tmp_path / "docker.tar"
    path.write_bytes(archive)
    budget = Budget(Limits(), stop=threading.Event(), free_bytes=lambda: 2**40)
    root = tmp_path / "root"
    root.mkdir()
    with layouts.archive(str(path), ANYWHERE, budget, tmp_path) as parts:
        image = flattenings.read(parts, references.parse("docker-archive:/x"), HERE, Limits())
        flattenings.flatten(image, parts, root, budget, privileged=False)
        for name in ("loop", "out", "missing", "../../etc/passwd", "/etc/passwd"):
            with pytest.raises(errors.InvalidRequest, match="it has no"):
                parts.document(name, 100)
    assert (root / "new").read_text() == "new"


def _member(name: str, data: bytes) -> bytes:
    return tar.file(name.encode(), data)


def test_blobs_may_be_links_within_the_roots_alone(tmp_path: Path) -> None:
    """Build tools make layouts of links; a link out of the roots is as if the blob were not there."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    files = files_of("oci-layout")
    images.write_directory(allowed / "store", files)
    images.write_directory(allowed / "layout", {"index.json": files["index.json"]})
    (allowed / "layout/blobs").symlink_to("../store/blobs")
    outside.mkdir()
    roots = paths.Roots.of([allowed])
    parts = layouts.Directory(str(allowed / "layout"), roots)
    reference = references.parse("oci-layout:/x")
    image = flattenings.read(parts, reference, HERE, Limits())
    assert len(image.layers) == 2
    (allowed / "store/blobs").rename(outside / "blobs")
    (allowed / "store/blobs").symlink_to(outside / "blobs")
    with pytest.raises(errors.InvalidRequest, match="it has no"):
        flattenings.read(parts, reference, HERE, Limits())


@pytest.mark.parametrize(
    "user, passwd, group, expected",
    [
        ("app", b"", b"", "app"),
        ("1:2", b"", b"", "1:2"),
        ("app:5", b"app:x:7:8\n", b"", "7:5"),
        ("3:staff", b"", b"wheel:x:1:\nstaff:x:50:\n", "3:50"),
        ("app:staff", b"broken\napp:x:7\n", b"staff:x:50:\n", "7:50"),
        ("app:staff", b"app:x:seven:\n", b"staff:x:50:\n", None),
        ("app:staff", b"app:x:7:\n", b"\xff\xfe", None),
    ],
)
def test_users_with_a_group_by_name(
    user: str, passwd: bytes, group: bytes, expected: str | None, tmp_path: Path
) -> None:
    """Are looked up in the image's own files; where they are not, the image is refused."""
    layer = tar.stream(tar.file(b"etc/passwd", passwd), tar.file(b"etc/group", group))
    files = files_of("docker-archive", [layer], images.config_of([layer], {"User": user}))
    if expected is None:
        with pytest.raises(errors.InvalidRequest, match="is not in its own"):
            flatten("docker-archive", files, tmp_path)
    else:
        assert flatten("docker-archive", files, tmp_path)[1].user == expected


@pytest.mark.parametrize("name", [b"etc", b"etc/passwd", b"etc/group"])
def test_account_files_that_are_links_are_not_followed(name: bytes, tmp_path: Path) -> None:
    """The host's own accounts would be read else."""
    real = [tar.file(other, b"root:x:0:0:\n") for other in (b"etc/passwd", b"etc/group") if not other.startswith(name)]
    layer = tar.stream(tar.symlink(name, b"/" + name), *real)
    files = files_of("docker-archive", [layer], images.config_of([layer], {"User": "root:root"}))
    with pytest.raises(errors.InvalidRequest, match="is not in its own"):
        flatten("docker-archive", files, tmp_path)
