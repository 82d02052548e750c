from pathlib import Path

from traforo.settings import places

XDG = {"XDG_STATE_HOME": "/x/state", "XDG_RUNTIME_DIR": "/x/run", "HOME": "/home/u"}


def test_root_keeps_things_where_the_system_does() -> None:
    """For root the XDG variables of whoever called sudo mean nothing."""
    assert places.state_dir("worker", XDG, 0) == Path("/var/lib/traforo/worker")
    assert places.run_dir("worker", XDG, 0) == Path("/run/traforo/worker")


def test_others_keep_things_where_xdg_says() -> None:
    """A user's process stays within that user's directories."""
    assert places.state_dir("control", XDG, 1000) == Path("/x/state/traforo/control")
    assert places.run_dir("control", XDG, 1000) == Path("/x/run/traforo/control")


def test_without_xdg_everything_is_below_home() -> None:
    """The specification's defaults; where there is no runtime directory, sockets go beside the state."""
    assert places.state_dir("worker", {"HOME": "/home/u"}, 1000) == Path("/home/u/.local/state/traforo/worker")
    assert places.run_dir("worker", {"HOME": "/home/u"}, 1000) == Path("/home/u/.local/state/traforo/worker/run")


def test_relative_xdg_directory_is_ignored() -> None:
    """The specification says that a relative path is invalid."""
    assert places.state_dir("worker", {"XDG_STATE_HOME": "x", "HOME": "/h"}, 1) == Path(
        "/h/.local/state/traforo/worker"
    )
