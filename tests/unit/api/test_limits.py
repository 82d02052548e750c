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
