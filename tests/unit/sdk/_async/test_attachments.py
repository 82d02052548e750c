import pytest

from tests.fakes.cutters import Cutter
from tests.fakes.servers import FakeServer
from traforo.sdk import errors, pauses, requests
from traforo.sdk._async import attachments
from traforo.sdk._async.sandboxes import AsyncSandbox


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.002)


async def test_a_terminal_is_typed_to(worker: FakeServer) -> None:
    """It has the size that was asked for, says what it is, echoes, and ends with its own exit code."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        started = await sandbox.terminals.create("stty size; echo $TERM; read x; exit 4", rows=33, columns=99)
        async with await sandbox.terminals.attach(started.id) as attached:
            text, typed = b"", False
            async for frame in attached.output():
                text += frame.data if frame.type == "stdout" else b""
                if b"xterm" in text and not typed:
                    typed = True
                    await attached.write("go\r")
        result = await started.wait()
    assert text.split()[:3] == [b"33", b"99", b"xterm-256color"]
    assert b"go" in text
    assert (result.exit_code, result.tty) == (4, True)


async def test_a_terminal_is_resized(worker: FakeServer) -> None:
    """Over its connection, and by a plain request."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        for way in ("attached", "request"):
            started = await sandbox.terminals.create("read x; stty size")
            async with await sandbox.terminals.attach(started.id) as attached:
                await (attached if way == "attached" else started).resize(50, 120)
                await attached.write("go\r")
                text = b"".join([frame.data async for frame in attached.output() if frame.type == "stdout"])
            assert b"50 120" in text


async def test_leaving_ends_nothing(worker: FakeServer) -> None:
    """Somebody else attaches later, and sees what was shown."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        started = await sandbox.terminals.create("echo first; read x; echo second")
        async with await sandbox.terminals.attach(started.id) as attached:
            async for frame in attached.output():
                if b"first" in frame.data:
                    break
        with pytest.raises(errors.Conflict, match="detached"):
            await attached.write("late")
        assert [frame async for frame in attached.output()] == []
        assert [item.exec_id for item in await sandbox.terminals.list()] == [started.id]
        async with await sandbox.terminals.attach(started.id) as again:
            await again.write("go\r")
            text = b"".join([frame.data async for frame in again.output() if frame.type == "stdout"])
    assert text.index(b"first") < text.index(b"second")


async def test_a_signal_and_the_end_of_input(worker: FakeServer) -> None:
    """By name or number, over the connection."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        for signal in ("INT", 2):
            started = await sandbox.start(["sleep", "60"])
            async with await sandbox.terminals.attach(started.id) as attached:
                await attached.signal(signal)
                assert [frame.type async for frame in attached.output()] == ["exit"]
            assert (await started.result()).exit_code == 130
        started = await sandbox.start("cat", stdin_open=True)
        async with await sandbox.terminals.attach(started.id) as attached:
            with pytest.raises(errors.InvalidRequest):
                await attached.signal("NONSENSE")
            await attached.write(b"one ")
            await attached.write("two")
            await attached.close_stdin()
            assert b"".join([f.data async for f in attached.output() if f.type == "stdout"]) == b"one two"


async def test_what_is_not_there_is_told_at_once(worker: FakeServer) -> None:
    """Before anything is read or written."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        with pytest.raises(errors.NotFound):
            await sandbox.terminals.attach("exec_none")
        worker.websockets = False
        started = await sandbox.start("true")
        with pytest.raises(errors.BadAnswer, match="no WebSocket"):
            await sandbox.terminals.attach(started.id)


async def test_a_terminal_can_be_killed(worker: FakeServer) -> None:
    """All that runs on it dies; one that has ended is fine."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        started = await sandbox.terminals.create(["sleep", "60"])
        await sandbox.terminals.delete(started.id)
        assert (await started.wait()).end == "signalled"
        await sandbox.terminals.delete(started.id)


@pytest.mark.parametrize("seed", range(4))
async def test_a_terminal_survives_cut_connections(worker: FakeServer, seed: int) -> None:
    """Output is whole and in order, and the size is told again."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        command = "for n in $(seq 200); do echo line $n; done; read x; stty size"
        started = await sandbox.terminals.create(command)
        with Cutter(worker.url, seed, least=150, most=900, cuts=20) as cutter:
            place = requests.Place(sandbox._place.url.replace(worker.url, cutter.url), None)
            attached = attachments.AsyncAttachment(sandbox._client, place, started.id)
            await attached.resize(44, 111)
            text = b""
            async for frame in attached.output():
                text += frame.data if frame.type == "stdout" else b""
                if b"line 200" in frame.data:
                    await started.write("go\r")
            assert cutter.cuts > 0
    lines = [line.strip() for line in text.split(b"\n")]
    assert [line for line in lines if line.startswith(b"line")] == [b"line %d" % n for n in range(1, 201)]
    assert b"44 111" in lines
