import os
import signal
from collections.abc import Iterator

import pytest

from traforo.cli import interrupts


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_is_raised_where_the_program_is(number: signal.Signals) -> None:
    """So that what has to be cleaned up is."""
    with interrupts.handled(), pytest.raises(interrupts.Interrupted) as caught:
        send(number)
    assert (caught.value.number, caught.value.exit_code) == (number, 128 + number)


def hold(signals: interrupts.Interrupts, *numbers: int) -> Iterator[str]:
    """Send these signals while they are held; gives out `done` at the end of the block."""
    with signals.held():
        for number in numbers:
            send(number)
        yield "done"


def test_a_signal_waits_while_it_is_held() -> None:
    """The block is finished first."""
    with interrupts.handled() as signals:
        block = hold(signals, signal.SIGINT)
        assert next(block) == "done"
        with pytest.raises(interrupts.Interrupted):
            next(block)


def test_the_second_signal_does_not_wait() -> None:
    """Whoever means it can leave at once."""
    with interrupts.handled() as signals, pytest.raises(interrupts.Interrupted) as caught:
        next(hold(signals, signal.SIGINT, signal.SIGTERM))
    assert caught.value.number == signal.SIGTERM


def test_no_signal_no_interruption() -> None:
    """And the former handlers come back."""
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.handled() as signals, signals.held():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
