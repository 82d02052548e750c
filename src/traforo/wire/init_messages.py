"""The init protocol as bytes: what the worker says to the spawner and to the inits, and what it takes from them.

`init/src/protocol.h` is the same thing for the other side, and a test compares the numbers. An init lives in a hostile
place: whatever it sends is checked here for shape, and by the callers for meaning. This module does no I/O.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PROTOCOL_VERSION = 4
MSG_MAX = 160 * 1024
MSG_FDS_MAX = 16

_HEADER = struct.Struct("<HHI")
_FIELD = struct.Struct("<HHI")
_NUMBER = struct.Struct("<Q")


class Type(enum.IntEnum):
    """Kinds of messages (`enum message_type`)."""

    HELLO = 1
    CREATE = 2
    LIST = 3
    ATTACH = 4
    UPDATE = 5
    KILL = 6
    FORGET = 7
    ADOPT = 8
    SHUTDOWN = 9
    EXEC = 16
    EXEC_LIST = 17
    EXEC_ATTACH = 18
    EXEC_RELEASE = 19
    SIGNAL = 20
    OPEN = 21
    STAT = 22
    MKDIR = 23
    REMOVE = 24
    RENAME = 25
    WALK = 26
    PING = 27
    STDIN_CLOSE = 28
    RESIZE = 29
    CHANGE = 30
    SYMLINK = 31
    LINK = 32
    WATCH = 33
    CONNECT = 34
    USAGE = 35
    DRAFT = 36
    PLACE = 37
    FILL = 38
    GO = 40
    SANDBOX_EXITED = 64
    READY = 65
    FAILED = 66
    EXEC_EXITED = 67
    OK = 128
    ERROR = 129


class Tag(enum.IntEnum):
    """Kinds of fields (`enum field_tag`)."""

    ID = 1
    LABEL = 2
    DEADLINE = 3
    PID = 4
    STATUS = 5
    REASON = 6
    ERRNO = 7
    STAGE = 8
    TEXT = 9
    CURSOR = 10
    MORE = 11
    ENTRY = 12
    OOM_KILLS = 13
    VERSION = 14
    INDEX = 15
    LIVE = 16
    CLONE_FLAGS = 32
    UID_MAP = 33
    GID_MAP = 34
    OWNER = 35
    CAPS = 36
    CGROUP = 37
    LAYER = 38
    OP = 39
    KIND = 40
    SETTING = 41
    NAME = 42
    VALUE = 43
    IDMAP = 44
    FSTYPE = 45
    OPTIONS = 46
    OPCODE = 47
    SOURCE = 48
    SECCOMP = 49
    NUMBER = 64
    ARG = 65
    ENV = 66
    CWD = 67
    USER = 68
    STDIN = 69
    SIGNAL = 70
    TREE = 71
    ROWS = 72
    COLUMNS = 73
    STREAMS = 74
    PORT = 75
    PATH = 80
    TO = 81
    FLAGS = 82
    MODE = 83
    FOLLOW = 84
    PARENTS = 85
    CREATED = 86
    RECURSIVE = 87
    LIMIT = 88
    STAT = 89
    TARGET = 90
    UID = 91
    GID = 92
    MODIFIED = 93
    USED = 94
    SIZE = 95
    BELOW = 96
    EXCLUSIVE = 97


class Opcode(enum.IntEnum):
    """Steps of a sandbox's set-up (`enum setup_opcode`)."""

    MKDIR = 1
    ENTER = 2
    MOUNT = 3
    MOVE = 4
    BIND = 5
    SYMLINK = 6
    WRITE = 7
    PIVOT = 8
    HOSTNAME = 9
    LOOPBACK = 10
    MASK = 11
    CHMOD = 12


class CgroupKind(enum.IntEnum):
    """Which generation of cgroups a directory belongs to (`enum cgroup_kind`)."""

    V1 = 1
    V2 = 2


class MalformedMessage(ValueError):
    """Bytes that are no message of this protocol."""


# Not an IntEnum: the tags of a message from elsewhere may be unknown, and looking each up would cost on the hot path.
Field = tuple[int, bytes]


def field(tag: int, data: bytes) -> bytes:
    """Encode a field of raw bytes."""
    return _FIELD.pack(tag, 0, len(data)) + data


def number(tag: int, value: int) -> bytes:
    """Encode a number field; negative values in two's complement."""
    return _FIELD.pack(tag, 0, 8) + _NUMBER.pack(value & 0xFFFFFFFFFFFFFFFF)


def string(tag: int, value: str | bytes) -> bytes:
    """Encode a string field. Text is UTF-8 with surrogate escapes. Raises `ValueError` for a NUL inside."""
    data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    if b"\0" in data:
        raise ValueError("a string of the init protocol cannot hold a NUL")
    return _FIELD.pack(tag, 0, len(data) + 1) + data + b"\0"


def nested(tag: int, *fields: bytes) -> bytes:
    """Encode a field that holds fields."""
    return field(tag, b"".join(fields))


def message(kind: int, request_id: int, *fields: bytes) -> bytes:
    """Encode a message. Raises `ValueError` when it is larger than the protocol allows."""
    data = b"".join((_HEADER.pack(kind, 0, request_id), *fields))
    if len(data) > MSG_MAX:
        raise ValueError(f"a message has at most {MSG_MAX} bytes, not {len(data)}")
    return data


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. `fields` in the order they came."""

    kind: int
    request_id: int
    fields: Sequence[Field]

    def data(self, tag: int) -> bytes | None:
        """Return the bytes of the first field with this tag."""
        for found, data in self.fields:
            if found == tag:
                return data
        return None

    def number(self, tag: int) -> int | None:
        """Return the first number with this tag. Raises `MalformedMessage` if it is none."""
        data = self.data(tag)
        return None if data is None else decode_number(data)

    def signed(self, tag: int) -> int | None:
        """Return the first number with this tag as a signed one."""
        value = self.number(tag)
        return value - (1 << 64) if value is not None and value >> 63 else value

    def string(self, tag: int) -> str | None:
        """Return the first string with this tag. Raises `MalformedMessage` if it is none."""
        data = self.data(tag)
        return None if data is None else decode_string(data)

    def entries(self) -> Iterator[Message]:
        """Walk the nested entries of a listing."""
        for tag, data in self.fields:
            if tag == Tag.ENTRY:
                yield Message(Tag.ENTRY, self.request_id, tuple(_fields(memoryview(data))))


def decode_number(data: bytes) -> int:
    """Read the value of a number field."""
    if len(data) != _NUMBER.size:
        raise MalformedMessage(f"a number of {len(data)} bytes")
    value: int = _NUMBER.unpack(data)[0]
    return value


def decode_string(data: bytes) -> str:
    """Read the value of a string field."""
    if not data.endswith(b"\0") or data.find(b"\0") != len(data) - 1:
        raise MalformedMessage("a string without its one NUL")
    return data[:-1].decode(errors="surrogateescape")


def _fields(data: memoryview) -> Iterator[Field]:
    at, end = 0, len(data)
    while at < end:
        if end - at < _FIELD.size:
            raise MalformedMessage("a torn field")
        tag, zero, length = _FIELD.unpack_from(data, at)
        at += _FIELD.size
        if zero or length > end - at:
            raise MalformedMessage("a field that is longer than its message")
        yield tag, bytes(data[at : at + length])
        at += length


def decode(data: bytes | bytearray | memoryview) -> Message:
    """Read a message. Raises `MalformedMessage`."""
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise MalformedMessage("a message without its header")
    kind, zero, request_id = _HEADER.unpack_from(view)
    if zero:
        raise MalformedMessage("a message with a wrong header")
    return Message(kind, request_id, tuple(_fields(view[_HEADER.size :])))
