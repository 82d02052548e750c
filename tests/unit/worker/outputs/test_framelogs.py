"""Frame logs: what was written can be read, from any cursor, across segments, crashes and full disks."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from traforo.worker.outputs import framelogs, frames
from traforo.worker.outputs.frames import Kind

EVERYTHING = 1 << 30
LIMITS = framelogs.Limits()
SMALL = framelogs.Limits(max_bytes=64 * 1024, segment_bytes=16 * 1024, max_frames=40)


class Pipe:
    """A pipe as a command's output comes in."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        for fd in (self.read, self.write):
            if fd >= 0:
                os.close(fd)
        self.read = self.write = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def put(log: framelogs.FrameLog, pipe: Pipe, kind: Kind, data: bytes, ms: int, *, grow: bool = True) -> None:
    """Let a command write `data` and the log take it."""
    done = 0
    while done < len(data):
        done += os.write(pipe.write, data[done : done + 65536])
        while True:
            move = log.begin(kind, ms, grow=grow)
            moved = move.run(pipe.read, EVERYTHING)
            log.commit(move, moved)
            if moved == 0:
                break


def read(log: framelogs.FrameLog, cursor: int = 0, limit: int = EVERYTHING) -> list[frames.Frame]:
    return log.view(seal=True).read(cursor, limit, EVERYTHING)


def shape(found: list[frames.Frame]) -> list[tuple[int, Kind, bytes]]:
    return [(frame.header.number, frame.header.kind, frame.payload) for frame in found]


def files(stem: str) -> list[Path]:
    place = Path(stem).parent
    return [path for path in place.iterdir() if path.name.startswith(Path(stem).name)] if place.exists() else []


def recover(stem: str, limits: framelogs.Limits = LIMITS) -> framelogs.FrameLog:
    numbers = [int(path.suffix[1:]) for path in files(stem)]
    return framelogs.FrameLog.recover(stem, limits, numbers)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def stem(tmp_path: Path) -> str:
    return str(tmp_path / "sandbox" / "exec_1")


def test_no_output_makes_no_file(stem: str) -> None:
    """An exec that prints nothing touches no disk."""
    log = framelogs.FrameLog(stem, LIMITS)
    log.finish(None, 5)
    assert (log.empty, log.count, log.dropped, read(log), Path(stem).parent.exists()) == (
        True,
        0,
        frames.Amounts(),
        [],
        False,
    )


def test_order_of_streams_is_kept(stem: str, pipe: Pipe) -> None:
    """Frames come out in the order in which they were taken."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"one", 1)
    put(log, pipe, Kind.STDERR, b"two", 2)
    put(log, pipe, Kind.STDOUT, b"three", 3)
    log.close()
    expected = [(0, Kind.STDOUT, b"one"), (1, Kind.STDERR, b"two"), (2, Kind.STDOUT, b"three")]
    assert shape(read(log)) == expected
    assert shape(read(recover(stem))) == expected


def test_small_writes_share_a_frame(stem: str, pipe: Pipe) -> None:
    """A command that writes byte by byte does not pay a header for each byte."""
    log = framelogs.FrameLog(stem, LIMITS)
    for _ in range(100):
        put(log, pipe, Kind.STDOUT, b"x", 7)
    assert shape(read(log)) == [(0, Kind.STDOUT, b"x" * 100)]
    log.close()


def test_old_frames_do_not_grow(stem: str, pipe: Pipe) -> None:
    """The time of a frame is that of all its bytes, within 10 ms."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"a", 1000)
    put(log, pipe, Kind.STDOUT, b"b", 1010)
    put(log, pipe, Kind.STDOUT, b"c", 1011)
    put(log, pipe, Kind.STDOUT, b"d", 500)  # the wall clock was set back
    assert [(frame.header.ms, frame.payload) for frame in read(log)] == [(1000, b"ab"), (1011, b"c"), (500, b"d")]
    log.close()


def test_seen_frames_do_not_grow(stem: str, pipe: Pipe) -> None:
    """A reader that goes on after the last frame it saw misses nothing."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"seen", 1)
    first = read(log)
    put(log, pipe, Kind.STDOUT, b"new", 1)
    assert shape(first) + shape(read(log, 1)) == [(0, Kind.STDOUT, b"seen"), (1, Kind.STDOUT, b"new")]
    log.close()


def test_large_frames_are_cut(stem: str, pipe: Pipe) -> None:
    """No frame is larger than the limit, so an answer can be kept small."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"z" * (framelogs.MAX_FRAME_BYTES + 1), 1)
    assert [len(frame.payload) for frame in read(log)] == [framelogs.MAX_FRAME_BYTES, 1]
    log.close()


def test_read_keeps_to_its_limits(stem: str, pipe: Pipe) -> None:
    """A read gives no more frames and bytes than asked for, but always one."""
    log = framelogs.FrameLog(stem, LIMITS)
    for number in range(5):
        put(log, pipe, Kind.STDOUT, b"%d" % number * 100, number, grow=False)
    view = log.view()
    size = frames.HEADER_BYTES + 100
    assert [frame.header.number for frame in view.read(1, 2, EVERYTHING)] == [1, 2]
    assert [frame.header.number for frame in view.read(0, 9, 2 * size)] == [0, 1]
    assert [frame.header.number for frame in view.read(0, 9, 2 * size - 1)] == [0]
    assert [frame.header.number for frame in view.read(3, 9, 1)] == [3]
    assert view.read(5, 9, EVERYTHING) == []
    log.close()


def test_read_goes_over_segments(stem: str, pipe: Pipe) -> None:
    """A reader does not notice where one file ends."""
    log = framelogs.FrameLog(stem, SMALL)
    for number in range(12):
        put(log, pipe, Kind.STDOUT, b"%02d" % number * 2000, number * 100)
    assert log.dropped.total == 0
    assert [frame.header.number for frame in read(log)] == list(range(log.count))
    assert b"".join(frame.payload for frame in read(log)) == b"".join(b"%02d" % number * 2000 for number in range(12))
    log.close()


def test_limits_drop_the_oldest(stem: str, pipe: Pipe) -> None:
    """What is over the limit goes from the front, is counted, and leaves no file; a restart knows the count."""
    log = framelogs.FrameLog(stem, SMALL)
    written = b"".join(b"%05d" % number for number in range(40_000))
    put(log, pipe, Kind.STDOUT, written, 1)
    log.close()
    held = b"".join(frame.payload for frame in read(log))
    on_disk = sum(path.stat().st_size for path in Path(stem).parent.iterdir())
    assert on_disk <= SMALL.max_bytes
    assert log.held == len(held) >= SMALL.max_bytes // 2
    assert log.dropped == frames.Amounts(stdout=len(written) - len(held))
    assert written.endswith(held)
    assert shape(read(log, 0)) == shape(read(log, log.oldest))
    again = recover(stem, SMALL)
    assert (again.dropped, again.oldest, again.count, again.held) == (log.dropped, log.oldest, log.count, log.held)


def test_position_is_known_for_dropped_frames(stem: str, pipe: Pipe) -> None:
    """How much a late reader missed can be told to the byte; after a restart, at most so much."""
    log = framelogs.FrameLog(stem, SMALL)
    written = b"".join(b"%05d" % number for number in range(40_000))
    sizes: list[int] = []
    for start in range(0, len(written), 1000):
        put(log, pipe, (Kind.STDOUT, Kind.STDERR)[start % 3 > 0], written[start : start + 1000], 1, grow=False)
        sizes += [1000] * (log.count - len(sizes))
    assert log.oldest > 0
    assert [log.position(cursor) for cursor in range(log.count + 1)] == [
        sum(sizes[:end]) for end in range(log.count + 1)
    ]
    log.close()
    again = recover(stem, SMALL)
    assert [again.position(number) for number in (0, 1, again.oldest)] == [0, 0, log.position(log.oldest)]


def test_frames_are_bounded(stem: str, pipe: Pipe) -> None:
    """A command whose output is in tiny pieces does not fill the memory with their index."""
    log = framelogs.FrameLog(stem, SMALL)
    for number in range(200):
        put(log, pipe, (Kind.STDOUT, Kind.STDERR)[number % 2], b"x", number)
    assert log.count == 200
    assert len(read(log)) <= SMALL.max_frames
    assert log.dropped.total == 200 - len(read(log))
    assert log.dropped.stdout == log.dropped.stderr
    log.close()


def test_view_of_dropped_segments_goes_on_with_the_rest(stem: str, pipe: Pipe) -> None:
    """A slow reader whose next frame is dropped under its hands continues with the oldest there is."""
    log = framelogs.FrameLog(stem, SMALL)
    put(log, pipe, Kind.STDOUT, b"a" * 40_000, 1)
    view = log.view()
    put(log, pipe, Kind.STDOUT, b"b" * 40_000, 1)
    assert log.oldest > 0
    assert view.read(0, EVERYTHING, EVERYTHING)[0].header.number == log.oldest
    log.close()


def test_final_frame_ends_an_unfinished_code_point(stem: str, pipe: Pipe) -> None:
    """A stream that stops inside a code point gets one more frame, so that text readers learn of it."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"ok", 1)
    put(log, pipe, Kind.STDERR, b"caf\xc3", 1)
    log.finish(b'{"end":"exited"}', 2)
    found = read(log)
    texts = frames.Texts()
    assert [texts.decode(frame) for frame in found] == ["ok", "caf", "\ufffd"]
    assert found[-1].header.flags & frames.FINAL
    assert (log.exit, log.exit_ms) == (b'{"end":"exited"}', 2)
    again = recover(stem)
    assert (again.exit, again.exit_ms, shape(read(again))) == (log.exit, 2, shape(found))


def test_carry_is_found_through_other_frames(stem: str, pipe: Pipe) -> None:
    """The start of a code point may be three frames of its stream back, with the other stream in between."""
    log = framelogs.FrameLog(stem, LIMITS)
    for byte in (b"\xf0", b"\x9f", b"\x98", b"\x80"):
        put(log, pipe, Kind.STDOUT, byte, 1)
        put(log, pipe, Kind.STDERR, b"e", 1)
    view = log.view()
    assert [view.carry(frame) for frame in read(log)[::2]] == [b"", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98"]
    assert [view.carry(frame) for frame in read(log)[1::2]] == [b""] * 4
    log.close()


def test_crash_between_header_and_payload(stem: str, pipe: Pipe) -> None:
    """A header without a byte behind it is cut off, and the log goes on."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"first", 1)
    log.begin(Kind.STDERR, 2).run(pipe.read, EVERYTHING)  # the pipe is empty: only the header is written
    again = recover(stem)
    assert shape(read(again)) == [(0, Kind.STDOUT, b"first")]
    put(again, pipe, Kind.STDERR, b"second", 3)
    again.close()
    log.close()
    assert shape(read(recover(stem))) == [(0, Kind.STDOUT, b"first"), (1, Kind.STDERR, b"second")]


def test_crash_after_payload(stem: str, pipe: Pipe) -> None:
    """Bytes that left the pipe are in the log even if nobody noted their number."""
    log = framelogs.FrameLog(stem, LIMITS)
    os.write(pipe.write, b"taken")
    assert log.begin(Kind.STDOUT, 1).run(pipe.read, EVERYTHING) == 5
    assert shape(read(recover(stem))) == [(0, Kind.STDOUT, b"taken")]


def test_torn_files(stem: str, pipe: Pipe) -> None:
    """Wherever the file is cut, what stands before the cut is read and the log can be continued."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"0123456789", 1)
    put(log, pipe, Kind.STDERR, b"abcdefghij", 1)
    log.finish(b"{}", 2)
    path = Path(f"{stem}.0")
    whole = path.read_bytes()
    stream = b"0123456789abcdefghij"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        again = recover(stem)
        got = b"".join(frame.payload for frame in read(again))
        assert stream.startswith(got)
        assert again.exit is None
        put(again, pipe, Kind.STDOUT, b"more", 3)
        again.finish(b"[]", 4)
        last = recover(stem)
        assert (b"".join(frame.payload for frame in read(last)), last.exit) == (got + b"more", b"[]")
        for other in path.parent.iterdir():
            other.unlink()


def test_refusing_disk_takes_nothing(stem: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full nothing leaves the pipe, and later everything arrives."""
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"before", 1)
    os.write(pipe.write, b"after")
    with monkeypatch.context() as patch:
        patch.setattr(os, "splice", _full)
        for kind in Kind.STDOUT, Kind.STDERR:
            with pytest.raises(OSError, match="No space"):
                log.begin(kind, 1).run(pipe.read, EVERYTHING)
        assert shape(read(recover(stem))) == [(0, Kind.STDOUT, b"before")]
    put(log, pipe, Kind.STDERR, b"", 1)
    move = log.begin(Kind.STDERR, 1)
    log.commit(move, move.run(pipe.read, EVERYTHING))
    log.close()
    assert shape(read(recover(stem))) == [(0, Kind.STDOUT, b"before"), (1, Kind.STDERR, b"after")]


def test_refusing_disk_at_the_first_byte(stem: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that could not be begun leaves neither a file nor a descriptor."""
    log = framelogs.FrameLog(stem, LIMITS)
    before = descriptors()
    monkeypatch.setattr(os, "pwrite", _full)
    with pytest.raises(OSError, match="No space"):
        log.begin(Kind.STDOUT, 1).run(pipe.read, EVERYTHING)
    assert (list(Path(stem).parent.iterdir()), descriptors()) == ([], before)


def test_file_system_without_splice(stem: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel cannot splice into a file, bytes are copied, and those that the disk refuses are told."""
    monkeypatch.setattr(os, "splice", _invalid)
    log = framelogs.FrameLog(stem, LIMITS)
    put(log, pipe, Kind.STDOUT, b"copied" * 20_000, 1)
    assert b"".join(frame.payload for frame in read(log)) == b"copied" * 20_000
    os.write(pipe.write, b"gone")
    move = log.begin(Kind.STDOUT, 100)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: _full() if data == b"gone" else real(fd, data, at))
    with pytest.raises(OSError, match="No space"):
        move.run(pipe.read, EVERYTHING)
    assert move.wasted == 4
    log.close()


def test_detach_gives_the_files_away(stem: str, pipe: Pipe) -> None:
    """A forgotten log names its files, has them open no more, and reads as empty."""
    log = framelogs.FrameLog(stem, SMALL)
    before = descriptors()
    put(log, pipe, Kind.STDOUT, b"x" * 40_000, 1)
    assert sorted(log.detach()) == sorted(map(str, files(stem)))
    assert (log.empty, read(log), log.held, descriptors()) == (True, [], 0, before)


def _full(*_args: object, **_kwargs: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _invalid(*_args: object, **_kwargs: object) -> int:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("limits", [LIMITS, SMALL, framelogs.Limits(max_bytes=4096, segment_bytes=65536)])
def test_segments_share_the_frames(limits: framelogs.Limits) -> None:
    """All segments together hold no more frames than the limit."""
    segments = max(1, limits.max_bytes // limits.segment_bytes)
    assert 1 <= limits.segment_frames * segments <= limits.max_frames


class LogMachine(RuleBasedStateMachine):
    """Random writes, crashes and readers, beside a model that is one list of bytes for each stream."""

    limits = framelogs.Limits(max_bytes=1 << 30, segment_bytes=8192, max_frames=1_000_000)

    def __init__(self) -> None:
        super().__init__()
        self.pipe = Pipe()
        self.ms = 0
        self.model = {Kind.STDOUT: b"", Kind.STDERR: b""}
        self.order: list[tuple[Kind, int]] = []
        self.seen: dict[int, tuple[Kind, bytes]] = {}

    @initialize(directory=st.uuids())
    def start(self, directory: object) -> None:
        self.base = Path(os.environ.get("TMPDIR", "/tmp")) / f"traforo-log-{os.getpid()}-{directory}"
        self.stem = str(self.base / "exec_x")
        self.log = framelogs.FrameLog(self.stem, self.limits)

    @rule(
        kind=st.sampled_from([Kind.STDOUT, Kind.STDERR]), data=st.binary(min_size=1, max_size=6000), grow=st.booleans()
    )
    def write(self, kind: Kind, data: bytes, grow: bool) -> None:
        put(self.log, self.pipe, kind, data, self.ms, grow=grow)
        self.model[kind] += data
        self.order.append((kind, len(data)))

    @rule(kind=st.sampled_from([Kind.STDOUT, Kind.STDERR]), data=st.binary(min_size=1, max_size=3000))
    def die_before_noting(self, kind: Kind, data: bytes) -> None:
        """Bytes are moved, and the worker dies before it makes them known."""
        os.write(self.pipe.write, data)
        moved = self.log.begin(kind, self.ms).run(self.pipe.read, EVERYTHING)
        if moved < len(data):
            os.read(self.pipe.read, EVERYTHING)
        self.model[kind] += data[:moved]
        self.order.append((kind, moved))
        self.crash()

    @rule(step=st.integers(-5, 50))
    def wait(self, step: int) -> None:
        self.ms = max(0, self.ms + step)

    @rule()
    def crash(self) -> None:
        """The process goes, its descriptors too; a new one finds the files."""
        if self.log._fd >= 0:
            os.close(self.log._fd)
            self.log._fd = -1
        self.log = recover(self.stem, self.limits)

    @rule()
    def close(self) -> None:
        self.log.close()

    @precondition(lambda self: self.log.count)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """A reader reads from anywhere, and remembers."""
        cursor = data.draw(st.integers(0, self.log.count - 1))
        limit = data.draw(st.integers(1, 10))
        found = self.log.view(seal=True).read(cursor, limit, data.draw(st.integers(1, 20_000)))
        assert found[0].header.number == cursor
        assert [frame.header.number for frame in found] == list(range(cursor, cursor + len(found)))
        for number, kind, payload in shape(found):
            assert self.seen.setdefault(number, (kind, payload)) == (kind, payload)

    @invariant()
    def everything_is_there(self) -> None:
        """Each stream is whole, in order, and what was seen has not changed."""
        found = self.log.view().read(0, EVERYTHING, EVERYTHING)
        for kind, expected in self.model.items():
            assert b"".join(frame.payload for frame in found if frame.header.kind is kind) == expected
        kinds = [frame.header.kind for frame in found]
        runs = [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] is not kind]
        moved = [kind for kind, count in self.order if count]
        assert runs == [kind for index, kind in enumerate(moved) if index == 0 or moved[index - 1] is not kind]
        for number, expected_frame in self.seen.items():
            assert (found[number].header.kind, found[number].payload) == expected_frame

    def teardown(self) -> None:
        self.pipe.close()
        self.log.close()
        for path in files(self.stem):
            path.unlink()
        if self.base.exists():
            self.base.rmdir()


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLogMachine = LogMachine.TestCase


def test_values_count(stem: str) -> None:
    """Values are whole frames among the output, counted apart from it, also when they are dropped and after a restart."""
    limits = framelogs.Limits(20_000, 10_000)
    log = framelogs.FrameLog(stem, limits)
    for number in range(8):
        log.add(Kind.STDOUT, b"o" * 1000, number)
        log.append(Kind.RESULT, b"r" * 4000, number)
    log.close()
    again = recover(stem, limits)
    for found in (log, again):
        held = found.view().held
        assert (found.written, found.count) == (frames.Amounts(8000, 0, 32_000), 16)
        assert found.dropped == frames.Amounts(8000 - held.stdout, 0, 32_000 - held.results)
        assert found.dropped.results > 0
        kept = read(found)
        assert {len(frame.payload) for frame in kept if frame.header.kind is Kind.RESULT} == {4000}
        assert (found.locates(found.oldest), found.position(found.count)) == (True, 40_000)
    assert (log.locates(0), again.locates(0)) == (True, False)


def test_output_in_memory_grows_frames(stem: str) -> None:
    """Small pieces that follow each other share a frame; a large one is cut into several."""
    log = framelogs.FrameLog(stem, framelogs.Limits())
    for _ in range(50):
        log.add(Kind.STDOUT, b"ab", 7)
    log.add(Kind.STDERR, b"x" * (framelogs.MAX_FRAME_BYTES + 1), 7)
    log.close()
    assert shape(read(log)) == [
        (0, Kind.STDOUT, b"ab" * 50),
        (1, Kind.STDERR, b"x" * framelogs.MAX_FRAME_BYTES),
        (2, Kind.STDERR, b"x"),
    ]
