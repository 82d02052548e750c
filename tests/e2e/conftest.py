"""One `traforo up` for all tests here."""

import sys
from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="session")
def up(request: pytest.FixtureRequest) -> Iterator[servers.Up]:
    """A control plane and a worker, started once. Their words are shown if any test failed."""
    with servers.started() as running:
        yield running
        if request.session.testsfailed:
            sys.stderr.write(servers.logs(running.state.parent) + "\n")
