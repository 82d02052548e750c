"""Documents of images, and choices among them."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.images import manifests
from traforo.worker.images.manifests import Config, Descriptor, DockerImage, Index, Manifest, Platform, Process

AMD64, ARM64, ARMV7 = Platform("amd64"), Platform("arm64"), Platform("arm", "v7")


def descriptor(digest: str = "sha256:" + "0" * 64, *, tag: str | None = None, on: str | None = None) -> Descriptor:
    platform = None
    if on is not None:
        system, architecture, *variant = on.split("/")
        platform = {"os": system, "architecture": architecture, "variant": "".join(variant)}
    value: dict[str, Any] = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    if tag is not None:
        value["annotations"] = {"org.opencontainers.image.ref.name": tag}
    if platform is not None:
        value["platform"] = platform
    return msgspec.convert(value, Descriptor)


@pytest.mark.parametrize("kind", [Index, Manifest, Config])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b'{"manifests": 1}', b'{"config": []}', b"[" * 100_000]
)
def test_malformed_documents_are_refused(data: bytes, kind: type[Index | Manifest | Config]) -> None:
    """Cut off, of another type or nested without end: the message names the document and quotes nothing of it."""
    with pytest.raises(errors.InvalidRequest, match=r"its index\.json is malformed"):
        manifests.decode(data, kind, "index.json")
    with pytest.raises(errors.InvalidRequest, match=r"manifest\.json is malformed"):
        manifests.decode_docker(data.replace(b"[]", b"[1]"))


def test_unknown_members_are_ignored() -> None:
    """Both specifications ask for it."""
    data = json.dumps({"manifests": [{"digest": "d", "size": 1, "new": {}}], "subject": None}).encode()
    assert manifests.decode(data, Index, "index").manifests == [Descriptor("d", 1)]


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "A" * 64, "sha256:../../x", "md5:" + "0" * 32, "sha512:00"]
)
def test_digests_that_cannot_be_verified_are_refused(digest: str) -> None:
    """A digest is a path as well; what is not hex does not become one."""
    with pytest.raises(errors.InvalidRequest, match="neither sha256 nor sha512"):
        manifests.split_digest(digest)


def test_digests() -> None:
    """Algorithm and digits, for both algorithms."""
    assert manifests.split_digest("sha256:" + "0a" * 32) == ("sha256", "0a" * 32)
    assert manifests.split_digest("sha512:" + "0a" * 64) == ("sha512", "0a" * 64)


class TestNamed:
    one, two = descriptor("one", tag="v1"), descriptor("two", tag="v2")
    plain = descriptor("plain")
    latest = descriptor("latest", tag="latest")

    @pytest.mark.parametrize(
        "there, name, digest, expected",
        [
            ([one, two], "v2", "", [two]),
            ([one, two], "", "one", [one]),
            ([plain], "", "", [plain]),
            ([one], "", "", [one]),
            ([one, two, latest], "", "", [latest]),
            ([plain, plain], "", "", [plain, plain]),
        ],
    )
    def test_what_a_reference_means(
        self, there: list[Descriptor], name: str, digest: str, expected: list[Descriptor]
    ) -> None:
        assert manifests.named(there, name=name, digest=digest) == expected

    def test_a_name_that_is_not_there_is_not_found(self) -> None:
        with pytest.raises(errors.NotFound, match="'v3'") as caught:
            manifests.named([self.one], name="v3", digest="")
        assert caught.value.fields == {"kind": "image", "id": "v3"}

    def test_a_name_is_needed_among_several(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="'v1', 'v2'"):
            manifests.named([self.one, self.two], name="", digest="")

    def test_names_in_messages_are_printable(self) -> None:
        """A tag of an archive cannot write lines into a log."""
        there = [descriptor(tag="a\nb" + "x" * 500), descriptor(tag="c")]
        with pytest.raises(errors.InvalidRequest) as caught:
            manifests.named(there, name="", digest="")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 250

    def test_an_index_has_a_limit(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="more than"):
            manifests.named([self.one] * 10_001, name="v1", digest="")


@pytest.mark.parametrize(
    "offered, platform, expected",
    [
        (["linux/amd64", "linux/arm64/v8"], AMD64, 0),
        (["linux/amd64", "linux/arm64/v8"], ARM64, 1),
        (["windows/amd64", "unknown/unknown", "linux/amd64"], AMD64, 2),
        ([None], AMD64, 0),
        ([None, "linux/amd64"], AMD64, 1),
        (["linux/amd64/v3", "linux/amd64"], AMD64, 1),
        (["linux/arm/v6", "linux/arm/v7"], ARMV7, 1),
        (["linux/arm/v8", "linux/arm/v6"], ARMV7, 1),
        (["linux/amd64", "linux/amd64"], AMD64, 0),
    ],
)
def test_the_platform_that_fits_best_is_chosen(offered: list[str | None], platform: Platform, expected: int) -> None:
    """Programs that run here, rather those made for here; the first of equals."""
    there = [descriptor(str(number), on=one) for number, one in enumerate(offered)]
    assert manifests.for_platform(there, platform).digest == str(expected)


def test_no_platform_that_fits() -> None:
    """The error says what there is."""
    with pytest.raises(errors.InvalidRequest, match="no variant for linux/arm64, only 'linux/amd64'"):
        manifests.for_platform([descriptor(on="linux/amd64")], ARM64)


@pytest.mark.parametrize(
    "machine, expected", [("x86_64", AMD64), ("aarch64", ARM64), ("armv7l", ARMV7), ("mips", Platform("mips"))]
)
def test_platform_of_a_machine(machine: str, expected: Platform) -> None:
    """What `uname -m` says, in the words of the specification."""
    assert manifests.platform_of(machine) == expected


def test_an_image_of_another_machine_is_refused() -> None:
    """Its programs would not run; images that do not say what they are for are taken."""
    rootfs = manifests.RootfsRecord()
    manifests.check_runs(Config(rootfs=rootfs, architecture="amd64", os="linux"), AMD64)
    manifests.check_runs(Config(rootfs=rootfs), AMD64)
    with pytest.raises(errors.InvalidRequest, match="it is for 'linux/arm64', this machine is linux/amd64"):
        manifests.check_runs(Config(rootfs=rootfs, architecture="arm64", os="linux"), AMD64)
    with pytest.raises(errors.InvalidRequest, match="windows"):
        manifests.check_runs(Config(rootfs=rootfs, architecture="amd64", os="windows"), AMD64)


def test_what_is_no_image_is_refused() -> None:
    """Registries hold charts, signatures and more in the same form."""
    chart = Descriptor("d", 1, "application/vnd.cncf.helm.config.v1+json")
    with pytest.raises(errors.InvalidRequest, match="not a container image"):
        manifests.check_is_image(Manifest(chart, []))
    manifests.check_is_image(Manifest(Descriptor("d", 1, "application/vnd.docker.container.image.v1+json"), []))


class TestDockerImages:
    one = DockerImage("c1", [], ["app:1", "app:latest"])
    two = DockerImage("c2", [], None)

    def test_by_name(self) -> None:
        assert manifests.docker_image([self.two, self.one], "app:1") is self.one
        assert manifests.docker_image([self.two, self.one], "app") is self.one
        assert manifests.docker_image([self.two], "") is self.two

    def test_errors(self) -> None:
        with pytest.raises(errors.NotFound, match="'app:2'"):
            manifests.docker_image([self.one, self.two], "app:2")
        with pytest.raises(errors.InvalidRequest, match="it holds 2 images, name one of: 'app:1', 'app:latest'"):
            manifests.docker_image([self.one, self.two], "")
        with pytest.raises(errors.InvalidRequest, match="it holds 0 images"):
            manifests.docker_image([], "")


class TestProcess:
    def test_environment_has_a_path(self) -> None:
        assert manifests.environment(Process()) == {"PATH": manifests.DEFAULT_PATH}
        assert manifests.environment(Process(env=["A=b=c", "PATH=/x", "E="])) == {"PATH": "/x", "A": "b=c", "E": ""}

    @pytest.mark.parametrize("line", ["A", "=x", "", "A=\0", "A=" + "x" * 70_000])
    def test_environments_that_cannot_be_set_are_refused(self, line: str) -> None:
        with pytest.raises(errors.InvalidRequest, match="environment"):
            manifests.environment(Process(env=[line]))

    @pytest.mark.parametrize(
        "user, expected", [("", "root"), ("app", "app"), ("1000", "1000"), ("1000:1000", "1000:1000"), ("a:b", "a:b")]
    )
    def test_users(self, user: str, expected: str) -> None:
        assert manifests.user(Process(user=user)) == expected

    @pytest.mark.parametrize("user", ["a b", "a\nb", ":", "a:", "a:b:c", "-r", "../x", "x" * 100, "ä"])
    def test_users_that_cannot_be_are_refused(self, user: str) -> None:
        with pytest.raises(errors.InvalidRequest, match="user"):
            manifests.user(Process(user=user))

    def test_working_directories(self) -> None:
        assert manifests.working_directory(Process()) is None
        assert manifests.working_directory(Process(working_dir="/app")) == "/app"
        assert manifests.working_directory(Process(working_dir="app")) == "/app"
        for path in ("/a\0b", "/" + "x" * 5000):
            with pytest.raises(errors.InvalidRequest, match="working directory"):
                manifests.working_directory(Process(working_dir=path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manifests", "digest", "size", "config", "layers", "rootfs", "diff_ids", "Env", "User"]),
            inner,
        )
    ),
    max_leaves=10,
)


@given(json_values, st.sampled_from([Index, Manifest, Config]))
def test_any_json_is_a_record_or_an_error_of_the_domain(value: object, kind: type[Index | Manifest | Config]) -> None:
    """Never another exception."""
    with contextlib.suppress(errors.InvalidRequest):
        assert isinstance(manifests.decode(json.dumps(value).encode(), kind, "index"), kind)
