import pytest

from traforo.api import limits

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "method, path, expected",
    [
        ("POST", "/sandboxes", MIB),
        ("PUT", "/sandboxes/x/files", None),
        ("POST", "/sandboxes/x/files/mkdir", MIB),
        ("POST", "/sandboxes/x/exec", MIB),
        ("POST", "/sandboxes/x/exec/code", 2 * MIB),
        ("PUT", "/sandboxes/x/y/files", MIB),
        ("GET", "/nowhere", MIB),
    ],
)
def test_worker_limits_each_route(method: str, path: str, expected: int | None) -> None:
    """1 MiB everywhere, 2 MiB of code, files without an end."""
    assert limits.worker().of(method, path) == expected


def test_archives_are_streamed() -> None:
    """An archive has any length, as a file has; what else is below files has not."""
    found = limits.worker()
    paths = ("/sandboxes/x/files", "/sandboxes/x/files/tar", "/sandboxes/x/files/move")
    assert [found.of("PUT", path) for path in paths] == [None, None, limits.DEFAULT]
