"""The SDK and the command line against servers in `prod` mode: tokens, owners, replays."""

import secrets
import time
from collections.abc import Iterator

import pytest
from joserfc import jwk, jwt

from tests import servers
from traforo import AsyncSandbox, Sandbox
from traforo.sdk import Client, errors

SECRET = secrets.token_hex(32)


@pytest.fixture(scope="module")
def closed() -> Iterator[servers.Up]:
    with servers.started(environment={"TRAFORO_JWT_SECRET": SECRET}) as running:
        yield running


def mint(client_id: str = "alice") -> str:
    now = int(time.time())
    claims = {"client_id": client_id, "iss": "traforo", "aud": "traforo-api", "iat": now, "exp": now + 60}
    key = jwk.OctKey.import_key(SECRET)
    return jwt.encode({"alg": "HS256"}, {**claims, "jti": secrets.token_hex(8)}, key)


def test_a_minted_token_is_enough(closed: servers.Up) -> None:
    """One for each create; afterwards the sandbox's own token is used."""
    with Client(closed.control_url, token=mint) as client:
        for _ in range(2):
            with Sandbox.create(client=client) as sandbox:
                assert sandbox.token
                assert sandbox.exec("echo hello", check=True).stdout == "hello\n"
                sandbox.files.write("/tmp/f", b"1")
                sandbox.renew(600)
                assert [f.type for f in sandbox.start("echo 1").frames()] == ["stdout", "exit"]
                assert sandbox.id in [info.sandbox_id for info in Sandbox.list(client=client)]


async def test_a_function_that_is_awaited_mints_as_well(closed: servers.Up) -> None:
    """Tokens may come from another service."""

    async def fetch() -> str:
        return mint()

    async with await AsyncSandbox.create(url=closed.control_url, token=fetch) as sandbox:
        assert (await sandbox.exec(["true"])).ok


def test_a_token_creates_one_sandbox(closed: servers.Up) -> None:
    """A second create with it is refused; reading what is one's own is not."""
    token = mint()
    with Sandbox.create(url=closed.control_url, token=token) as sandbox:
        with pytest.raises(errors.Unauthenticated):
            Sandbox.create(url=closed.control_url, token=token)
        same = Sandbox.connect(sandbox.id, url=closed.control_url, token=token)
        assert same.exec(["true"]).ok
        same.close()


def test_nobody_else_gets_in(closed: servers.Up) -> None:
    """Without a credential, with another client's, with another sandbox's."""
    with (
        Sandbox.create(url=closed.control_url, token=mint()) as mine,
        Sandbox.create(url=closed.control_url, token=mint("bob")) as other,
    ):
        with pytest.raises(errors.Unauthenticated):
            Sandbox.create(url=closed.control_url)
        with pytest.raises(errors.Unauthenticated):
            Sandbox.connect(mine.id, url=closed.control_url)
        with pytest.raises(errors.Forbidden):
            Sandbox.connect(mine.id, url=closed.control_url, token=mint("bob"))
        with pytest.raises((errors.Forbidden, errors.Unauthenticated)):
            Sandbox.connect(mine.id, url=closed.control_url, sandbox_token=other.token)
        assert mine.id not in [info.sandbox_id for info in Sandbox.list(url=closed.control_url, token=mint("bob"))]


def test_the_command_line_takes_a_token(closed: servers.Up) -> None:
    """From the environment; without one it says what is missing."""
    done = closed.run("run", "--", "true")
    assert (done.returncode, done.stderr.startswith(b"error: ")) == (125, True)
    done = closed.run("run", "--", "sh", "-c", "echo hello; exit 3", token=mint())
    assert (done.returncode, done.stdout) == (3, b"hello\n")
