from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.settings import files


def test_mapping_is_read() -> None:
    """Plain YAML becomes plain values."""
    assert files.parse(b"listen: ':80'\nlog:\n  level: debug\n", "f") == {"listen": ":80", "log": {"level": "debug"}}


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"---\n", b"null\n"])
def test_empty_file_is_an_empty_mapping(text: bytes) -> None:
    """A file in which everything is commented out changes nothing."""
    assert files.parse(text, "f") == {}


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"a: 1\na: 2\n", "duplicate key 'a' in line 2"),
        (b"log:\n  level: info\n  level: debug\n", "duplicate key 'level' in line 3"),
        (b"a: 1\n---\nb: 2\n", "but found another document"),
        (b"a: &x 1\nb: *x\n", "aliases are not allowed"),
        (b"a: &x [*x]\n", "aliases are not allowed"),
        (b"1: a\n", "a key is a string"),
        (b"a: !!python/object/apply:os.getpid []\n", "could not determine a constructor"),
        (b"- a\n", "the top level is not a mapping"),
        (b"a: [\n", "in line 2"),
        (b"\xff\xfe\xff", "not YAML"),
    ],
)
def test_what_could_be_misread_is_refused(text: bytes, reason: str) -> None:
    """Nothing that two readers could understand differently is accepted, and the error says where it is."""
    with pytest.raises(errors.InvalidRequest, match="cannot read settings from 'f'") as caught:
        files.parse(text, "f")
    assert reason in caught.value.message


def test_deep_nesting_is_refused() -> None:
    """A file cannot exhaust the stack."""
    with pytest.raises(errors.InvalidRequest):
        files.parse(b"a: " + b"[" * 100_000, "f")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file, and why it cannot be read."""
    with pytest.raises(errors.InvalidRequest, match="No such file") as caught:
        files.read(tmp_path / "absent.yaml")
    assert "absent.yaml" in caught.value.message


def test_huge_file_is_refused(tmp_path: Path) -> None:
    """A file that is no configuration is not read to its end."""
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (files.MAX_BYTES + 1))
    with pytest.raises(errors.InvalidRequest, match="larger than"):
        files.read(path)
