"""A worker that is killed while it moves output loses nothing: what it took is in the log, the rest is in the pipe."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from traforo.worker.outputs import framelogs, frames

TAKER = """
import os, select, sys, time
from traforo.worker.outputs import framelogs, frames

stdout, stderr, stem = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
limits = framelogs.Limits(max_bytes=1 << 30, segment_bytes=1 << 16)
numbers = [int(name.rpartition(".")[2]) for name in os.listdir(os.path.dirname(stem))]
log = framelogs.FrameLog.recover(stem, limits, numbers)
pipes = {stdout: frames.Kind.STDOUT, stderr: frames.Kind.STDERR}
for fd in pipes:
    os.set_blocking(fd, False)
print("ready", flush=True)
while True:
    for fd in select.select(list(pipes), [], [])[0]:
        move = log.begin(pipes[fd], int(time.time() * 1000))
        log.commit(move, move.run(fd, 4096))
"""
BYTES = 15_000_000


def pattern(seed: int) -> bytes:
    return random.Random(seed).randbytes(BYTES)


def feed(fd: int, data: bytes, seed: int) -> None:
    """Write as a command does, in pieces of any size."""
    chance = random.Random(seed)
    at = 0
    with os.fdopen(fd, "wb", buffering=0) as pipe:
        while at < len(data):
            size = chance.choice([1, 3, 100, 5000, 70_000])
            at += pipe.write(data[at : at + size])


def rest(fd: int) -> bytes:
    pieces = []
    while True:
        try:
            piece = os.read(fd, 1 << 20)
        except BlockingIOError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    """However often the taker is killed, log and pipe together hold each stream exactly."""
    (tmp_path / "box").mkdir()
    stem = str(tmp_path / "box" / "exec_x")
    chance = random.Random(seed)
    data = {frames.Kind.STDOUT: pattern(seed), frames.Kind.STDERR: pattern(seed + 100)}
    pipes = {kind: os.pipe() for kind in data}
    for reader, _ in pipes.values():
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 16_384)
    feeders = [
        threading.Thread(target=feed, args=(os.dup(writer), data[kind], seed), daemon=True)
        for kind, (_, writer) in pipes.items()
    ]
    for feeder in feeders:
        feeder.start()
    for _, writer in pipes.values():
        os.close(writer)
    readers = [reader for reader, _ in pipes.values()]
    kills = 0
    while any(feeder.is_alive() for feeder in feeders):
        command = [sys.executable, "-c", TAKER, *map(str, readers), stem]
        with subprocess.Popen(command, pass_fds=readers, stdout=subprocess.PIPE) as taker:
            assert taker.stdout is not None
            taker.stdout.readline()
            end = time.monotonic() + chance.uniform(0.0, 0.01) if kills < 8 else float("inf")
            while time.monotonic() < end and any(feeder.is_alive() for feeder in feeders):
                time.sleep(0.0005)
            taker.send_signal(signal.SIGKILL)
        kills += 1
    numbers = [int(path.suffix[1:]) for path in (tmp_path / "box").iterdir()]
    log = framelogs.FrameLog.recover(stem, framelogs.Limits(1 << 30, 1 << 16), numbers)
    found = log.view().read(0, 1 << 30, 1 << 30)
    for kind, (reader, _) in pipes.items():
        os.set_blocking(reader, False)
        logged = b"".join(frame.payload for frame in found if frame.header.kind is kind)
        assert logged + rest(reader) == data[kind]
        os.close(reader)
    assert kills >= 5
