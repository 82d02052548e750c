"""Taking references apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.images import references
from traforo.worker.images.references import Kind, Reference

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "text, expected",
    [
        ("host", Reference("host", Kind.HOST)),
        ("dir:/srv/root", Reference("dir:/srv/root", Kind.DIRECTORY, "/srv/root")),
        ("dir:/srv//a/../root/.", Reference("dir:/srv//a/../root/.", Kind.DIRECTORY, "/srv/root")),
        ("dir://srv", Reference("dir://srv", Kind.DIRECTORY, "/srv")),
        ("dir:/", Reference("dir:/", Kind.DIRECTORY, "/")),
        ("dir:/ä@b", Reference("dir:/ä@b", Kind.DIRECTORY, "/ä@b")),
        ("oci-layout:/l", Reference("oci-layout:/l", Kind.OCI_LAYOUT, "/l")),
        ("oci-layout:/l:v1", Reference("oci-layout:/l:v1", Kind.OCI_LAYOUT, "/l", "v1")),
        (f"oci-layout:/l@{DIGEST}", Reference(f"oci-layout:/l@{DIGEST}", Kind.OCI_LAYOUT, "/l", "", DIGEST)),
        ("oci-archive:/a.tar:v1", Reference("oci-archive:/a.tar:v1", Kind.OCI_ARCHIVE, "/a.tar", "v1")),
        (
            "docker-archive:/a.tar:localhost:5000/team/app:v1.2_3-4+5",
            Reference(
                "docker-archive:/a.tar:localhost:5000/team/app:v1.2_3-4+5",
                Kind.DOCKER_ARCHIVE,
                "/a.tar",
                "localhost:5000/team/app:v1.2_3-4+5",
            ),
        ),
    ],
)
def test_every_form(text: str, expected: Reference) -> None:
    """Kind, path, name and digest are found; the path is normal and the text is kept."""
    assert references.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["debian:12", "python", "Host", "host:", "hostess", "http://x/y", "oci:/x", ":", "dir"]
)
def test_names_of_no_known_source_are_not_found(text: str) -> None:
    """A caller who names an image that must be fetched is told what there is instead."""
    with pytest.raises(errors.NotFound, match="cannot find image") as caught:
        references.parse(text)
    assert caught.value.fields["kind"] == "image"
    assert caught.value.fields["id"] == text
    assert caught.value.hint is not None
    assert "oci-layout:" in caught.value.hint


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "1 to 4096"),
        ("dir:/" + "x" * 5000, "1 to 4096"),
        ("dir:/" + "ä" * 3000, "too long"),
        ("dir:/a\nb", "printable"),
        ("dir:/a\0b", "printable"),
        ("dir:/a\x1b[2J", "printable"),
        ("dir:/\udc80", "printable"),
        ("dir:", "absolute"),
        ("dir:srv/root", "absolute"),
        ("dir:../root", "absolute"),
        ("dir:/a:/etc", "colon"),
        ("dir:/a,upperdir=/etc", "comma"),
        ("dir:/a\\:b", "backslash"),
        ("oci-layout::v1", "absolute"),
        ("oci-layout:/l:", "not a name"),
        ("oci-layout:/l:-x", "not a name"),
        ("oci-layout:/l:a b", "not a name"),
        ("oci-layout:/l:" + "x" * 600, "not a name"),
        ("oci-layout:/l@sha256:abc", "not a digest"),
        ("oci-layout:/l@md5:" + "a" * 32, "not a digest"),
        (f"oci-layout:/l@{DIGEST.upper()}", "not a digest"),
    ],
)
def test_malformed_references_are_refused(text: str, why: str) -> None:
    """The field is named, and the message has no control characters of the caller's in it."""
    with pytest.raises(errors.InvalidRequest, match=why) as caught:
        references.parse(text)
    assert caught.value.fields == {"field": "image"}
    assert caught.value.message.isprintable()


@given(
    st.one_of(st.text(), st.sampled_from([*Kind]).flatmap(lambda kind: st.text().map(lambda text: f"{kind}:/{text}")))
)
def test_any_text_is_a_reference_or_an_error_of_the_domain(text: str) -> None:
    """What is accepted has a normal absolute path and no colon in it."""
    try:
        reference = references.parse(text)
    except (errors.NotFound, errors.InvalidRequest):
        return
    assert reference.text == text
    if reference.kind is not Kind.HOST:
        assert reference.path.startswith("/")
        assert ":" not in reference.path
        assert not {"..", ".", ""} & set(reference.path[1:].split("/")[:-1])
