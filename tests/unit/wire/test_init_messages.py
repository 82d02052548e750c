"""The init protocol: both sides use the same numbers, and bytes from a hostile init are refused in one way."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.wire import init_messages as wire

HEADER = Path(__file__).parents[3] / "init" / "src" / "protocol.h"


def c_constants(prefix: str) -> dict[str, int]:
    """Read `PREFIX_NAME = 1` from the C header."""
    return {name: int(value) for name, value in re.findall(rf"\b{prefix}_(\w+) = (\d+)", HEADER.read_text())}


@pytest.mark.parametrize(
    "prefix, numbers",
    [("M", wire.Type), ("T", wire.Tag), ("OP", wire.Opcode), ("CGROUP", wire.CgroupKind)],
)
def test_both_sides_use_the_same_numbers(prefix: str, numbers: type[enum.IntEnum]) -> None:
    """Every message, field, step and kind has the same name and number in C and in Python."""
    assert c_constants(prefix) == {member.name: member.value for member in numbers}


def test_both_sides_use_the_same_limits() -> None:
    """Sizes and version are those of the C header."""
    text = HEADER.read_text()
    assert f"#define PROTOCOL_VERSION {wire.PROTOCOL_VERSION}\n" in text
    assert f"#define MSG_MAX ({wire.MSG_MAX // 1024} * 1024)" in text
    assert f"#define MSG_FDS_MAX {wire.MSG_FDS_MAX}\n" in text


fields = st.one_of(
    st.tuples(st.just("number"), st.integers(0, 0xFFFF), st.integers(-(1 << 63), (1 << 64) - 1)),
    st.tuples(st.just("string"), st.integers(0, 0xFFFF), st.text().filter(lambda text: "\0" not in text)),
    st.tuples(st.just("field"), st.integers(0, 0xFFFF), st.binary()),
)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.lists(fields))
def test_what_is_encoded_is_decoded(kind: int, request_id: int, wanted: list[tuple[str, int, object]]) -> None:
    """A message comes back with its kind, id, tags and values, in order."""
    text = wire.message(kind, request_id, *(getattr(wire, how)(tag, value) for how, tag, value in wanted))
    decoded = wire.decode(text)
    assert (kind, request_id) == (decoded.kind, decoded.request_id)
    assert [tag for _, tag, _ in wanted] == [tag for tag, _ in decoded.fields]
    for (how, _, value), (_, data) in zip(wanted, decoded.fields, strict=True):
        if how == "number":
            assert isinstance(value, int)
            assert value % (1 << 64) == wire.decode_number(data)
        elif how == "string":
            assert value == wire.decode_string(data)
        else:
            assert value == data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    """Nothing that an init could send raises anything but `MalformedMessage`."""
    try:
        message = wire.decode(data)
        for entry in message.entries():
            entry.number(wire.Tag.NUMBER)
            entry.string(wire.Tag.ID)
        message.signed(wire.Tag.STATUS)
    except wire.MalformedMessage:
        return


def test_names_that_are_not_text_survive() -> None:
    """A path of stray bytes comes back as the same bytes."""
    path = b"/tmp/\xff\xfe name".decode(errors="surrogateescape")
    decoded = wire.decode(wire.message(wire.Type.OPEN, 1, wire.string(wire.Tag.PATH, path)))
    assert path == decoded.string(wire.Tag.PATH)


def test_a_nul_cannot_be_smuggled_into_a_string() -> None:
    """A NUL inside would cut the string on the other side."""
    with pytest.raises(ValueError, match="NUL"):
        wire.string(wire.Tag.PATH, "/etc/passwd\0.txt")


def test_a_message_has_a_largest_size() -> None:
    """One byte more than the other side reads is refused before it is sent."""
    room = wire.MSG_MAX - 16
    assert len(wire.message(1, 1, wire.field(2, bytes(room)))) == wire.MSG_MAX
    with pytest.raises(ValueError, match="at most"):
        wire.message(1, 1, wire.field(2, bytes(room + 1)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x00\x00\x00\x01\x00\x00",
        b"\x01\x00\x01\x00\x01\x00\x00\x00",
        wire.message(1, 1, wire.number(2, 3))[:-1],
        wire.message(1, 1) + b"\x01\x00\x00\x00\xff\xff\xff\xff",
        wire.message(1, 1) + b"\x01\x00\x01\x00\x00\x00\x00\x00",
    ],
    ids=["empty", "short header", "wrong header", "torn field", "field too long", "wrong field header"],
)
def test_torn_messages_are_malformed(data: bytes) -> None:
    """A message that is cut or dishonest about its lengths is refused."""
    with pytest.raises(wire.MalformedMessage):
        wire.decode(data)
