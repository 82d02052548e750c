"""Paths in requests and answers: exact both ways, whatever bytes they are of."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import paths

names = st.binary(min_size=1, max_size=200).filter(lambda data: b"\0" not in data)


@given(names)
def test_any_bytes_come_back(name: bytes) -> None:
    """A path of any bytes that an answer tells can be asked for again."""
    path = paths.asked(None, base64.b64encode(b"/" + name).decode())
    assert paths.exact(path) == b"/" + name
    told = paths.fields(path)
    assert paths.asked(told["path"] if "path_b64" not in told else None, told.get("path_b64")) == path


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100))
def test_text_stays_text(text: str) -> None:
    """A path that is UTF-8 is shown as it is, `%` and all."""
    assert paths.fields("/" + text) == {"path": "/" + text}


def test_stray_bytes_are_shown() -> None:
    """Each byte that is not UTF-8 appears as its number."""
    path = b"/caf\xe9/\xff%41".decode(errors="surrogateescape")
    assert paths.shown(path) == "/caf%E9/%FF%41"
    assert set(paths.fields(path, "name")) == {"name", "name_b64"}


@pytest.mark.parametrize(
    "path, path_b64, kind",
    [
        (None, None, errors.InvalidRequest),
        ("/a", "L2E=", errors.InvalidRequest),
        ("", None, errors.InvalidRequest),
        ("a", None, errors.InvalidRequest),
        ("/a\0", None, errors.InvalidRequest),
        ("/\ud800", None, errors.InvalidRequest),
        ("/" + "x" * 4095, None, errors.TooLarge),
        ("/" + "é" * 2048, None, errors.TooLarge),
        (None, "not base64", errors.InvalidRequest),
        (None, "é", errors.InvalidRequest),
        (None, "", errors.InvalidRequest),
        (None, base64.b64encode(b"a").decode(), errors.InvalidRequest),
        (None, base64.b64encode(b"/\0").decode(), errors.InvalidRequest),
    ],
)
def test_refusals(path: str | None, path_b64: str | None, kind: type[errors.TraforoError]) -> None:
    """What cannot be a path is refused."""
    with pytest.raises(kind) as caught:
        paths.asked(path, path_b64)
    assert type(caught.value) is kind


def test_longest_path() -> None:
    """The longest path that the kernel takes is taken."""
    assert paths.asked("/" + "x" * 4094, None)


@pytest.mark.parametrize("path", ["/", "//", "///", "/.", "/..", "/a/..", "/../..", "/a/./../"])
def test_root(path: str) -> None:
    """The root has many spellings."""
    assert paths.is_root(path)


@pytest.mark.parametrize("path", ["/a", "/a/", "/..a", "/a/../b", "/ "])
def test_not_root(path: str) -> None:
    """What may be something else is not taken for the root."""
    assert not paths.is_root(path)
