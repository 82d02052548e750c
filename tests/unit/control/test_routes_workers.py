from typing import Any

import httpx2
import pytest

from tests.unit.control import planes
from traforo.domain import clocks as domain_clocks
from traforo.domain import errors

URL = "/internal/workers/w1/registration"


def error(response: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def refusal(response: httpx2.Response, field: str) -> tuple[object, object]:
    """Return code and one field of an error."""
    return error(response)["code"], error(response)[field]


async def test_registration_is_answered_with_the_lease(dev: planes.Plane) -> None:
    response = await dev.register()
    assert (response.status_code, response.json()) == (
        200,
        {
            "worker_id": "w1",
            "lease_ttl_seconds": 120.0,
            "heartbeat_interval_seconds": 30.0,
            "expires_at": domain_clocks.rfc3339(dev.clock.now() + 120),
        },
    )


async def test_registration_is_kept(dev: planes.Plane) -> None:
    """What was said is in the store when the answer is given, capacity included."""
    [member] = await dev.store.members()
    worker = member.worker
    assert (worker.worker_id, worker.hostname, worker.base_url) == ("w1", "one.example", "http://one.example:8081")
    assert (worker.total_cores, worker.total_memory_mib, worker.max_live_sandboxes) == (2.0, 4096, 10)
    assert (member.lease.live_sandboxes, member.registered_at) == (3, dev.clock.now())


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"hostname": ""}, "hostname"),
        ({"hostname": "a" * 254}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"base_url": "http://a/b"}, "base_url"),
        ({"base_url": "a" * 513}, "base_url"),
        ({"hardware_sku": "a" * 129}, "hardware_sku"),
        ({"virtualizations": []}, "virtualizations"),
        ({"virtualizations": ["a"] * 33}, "virtualizations"),
        ({"virtualizations": ["a" * 65]}, "virtualizations.0"),
        ({"total_cores": -1}, "total_cores"),
        ({"total_memory_mib": 1.5}, "total_memory_mib"),
        ({"max_live_sandboxes": 1_000_001}, "max_live_sandboxes"),
        ({"live_sandboxes": -1}, "live_sandboxes"),
        ({"images": ["a" * 1025]}, "images.0"),
        ({"images": ["a"] * 1001}, "images"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_every_field_is_checked(changes: dict[str, Any], field: str) -> None:
    async with planes.plane() as plane:
        response = await plane.register(**changes)
        assert (response.status_code, error(response)["code"], error(response)["field"]) == (
            400,
            "invalid_request",
            field,
        )
        assert list(await plane.store.members()) == []


@pytest.mark.parametrize("name", ["hostname", "base_url"])
async def test_who_and_where_are_required(name: str) -> None:
    async with planes.plane() as plane:
        body = {key: value for key, value in planes.REGISTRATION.items() if key != name}
        response = await plane.http.put(URL, json=body)
        assert (response.status_code, error(response)["field"]) == (400, name)


@pytest.mark.parametrize("worker_id", ["a.b", "a%20b", "a" * 65, "%0d%0a", "é"])
async def test_worker_id_is_checked(dev: planes.Plane, worker_id: str) -> None:
    for method in ("PUT", "DELETE"):
        response = await dev.http.request(method, f"/internal/workers/{worker_id}/registration", json={})
        assert (response.status_code, error(response)["field"]) == (400, "worker_id")


async def test_body_is_limited(dev: planes.Plane) -> None:
    response = await dev.http.put(URL, content=b" " * (1024 * 1024 + 1))
    assert (response.status_code, error(response)["limit"]) == (413, 1024 * 1024)


async def test_live_host_name_is_not_given_away(dev: planes.Plane) -> None:
    response = await dev.register("w2")
    assert (response.status_code, error(response)["code"], error(response)["hostname"]) == (
        409,
        "conflict",
        "one.example",
    )


async def test_deregistration(dev: planes.Plane) -> None:
    """The worker is unknown at once; telling it again, or for somebody unknown, is no error."""
    mine = {"base_url": str(planes.REGISTRATION["base_url"])}
    for _ in range(2):
        response = await dev.http.delete(URL, params=mine)
        assert (response.status_code, response.content) == (204, b"")
    assert (await dev.http.get(f"/sandboxes/{planes.SANDBOX}")).status_code == 404
    assert (await dev.http.delete("/internal/workers/nobody/registration", params=mine)).status_code == 204


async def test_deregistration_of_another_worker(dev: planes.Plane) -> None:
    """What registered elsewhere by the same id stays; one that does not say who it is is refused."""
    assert (await dev.http.delete(URL, params={"base_url": "http://elsewhere:8081"})).status_code == 204
    for query in ({}, {"base_url": "ftp://x"}, {"base_url": "http://x/path"}):
        response = await dev.http.delete(URL, params=query)
        assert (response.status_code, error(response)["field"]) == (400, "base_url")
    assert (await dev.http.get(f"/sandboxes/{planes.SANDBOX}")).status_code == 307


async def test_store_that_fails_is_a_defect_of_ours(dev: planes.Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration that would not survive is not acknowledged; nothing of the reason is told."""

    async def fail(_: object) -> None:
        raise errors.Internal("cannot write: /secret/path is full")

    monkeypatch.setattr(dev.store, "write", fail)
    response = await dev.register(base_url="http://new")
    assert (response.status_code, error(response)["code"]) == (500, "internal")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
async def test_other_methods(dev: planes.Plane, method: str) -> None:
    response = await dev.http.request(method, URL)
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, PUT")


class TestProd:
    """Only the worker itself, once with each token."""

    async def test_token_is_needed(self, prod: planes.Plane) -> None:
        for method in ("PUT", "DELETE"):
            response = await prod.http.request(method, URL, json=planes.REGISTRATION)
            assert (response.status_code, error(response)["reason"]) == (401, "missing")

    async def test_token_of_another_worker(self, prod: planes.Plane) -> None:
        for method in ("PUT", "DELETE"):
            response = await prod.http.request(method, URL, json=planes.REGISTRATION, headers=prod.internal("w2"))
            assert (response.status_code, error(response)["reason"]) == (401, "wrong_subject")

    async def test_token_works_once(self, prod: planes.Plane) -> None:
        """Once over all routes, not once each."""
        headers = prod.internal()
        assert (await prod.http.put(URL, json=planes.REGISTRATION, headers=headers)).status_code == 200
        for method in ("PUT", "DELETE"):
            response = await prod.http.request(method, URL, json=planes.REGISTRATION, headers=headers)
            assert (response.status_code, error(response)["reason"]) == (401, "replayed")
        assert (await prod.http.get(f"/sandboxes/{planes.SANDBOX}")).status_code == 307

    async def test_token_expires(self, prod: planes.Plane) -> None:
        headers = prod.internal()
        prod.clock.move(45.0)
        response = await prod.http.put(URL, json=planes.REGISTRATION, headers=headers)
        assert (response.status_code, error(response)["reason"]) == (401, "expired")

    @pytest.mark.parametrize(
        "changes, reason",
        [
            ({"aud": "traforo-api"}, "audience"),
            ({"aud": None}, "audience"),
            ({"sub": None}, "wrong_subject"),
            ({"sub": "w2"}, "wrong_subject"),
            ({"exp": None}, "claims"),
            ({"iat": None}, "claims"),
            ({"iat": 9e9}, "not_yet_valid"),
            ({"jti": None}, "claims"),
            ({"secret": "another secret of thirty-two bytes"}, "signature"),
            ({"lifetime": 3600}, "claims"),
        ],
    )
    async def test_each_claim_is_checked(self, prod: planes.Plane, changes: dict[str, Any], reason: str) -> None:
        lifetime = changes.pop("lifetime", 45)
        claims = {"sub": "w1", "aud": "traforo-internal", "exp": prod.clock.now() + lifetime} | changes
        response = await prod.http.put(URL, json=planes.REGISTRATION, headers=prod.client(**claims))
        assert (response.status_code, error(response)["reason"]) == (401, reason)

    async def test_client_token_registers_nobody(self, prod: planes.Plane) -> None:
        assert (await prod.http.put(URL, json=planes.REGISTRATION, headers=prod.client())).status_code == 401

    async def test_credential_is_checked_before_the_body(self, prod: planes.Plane) -> None:
        assert (await prod.http.put(URL, content=b"{")).status_code == 401

    async def test_used_token_stays_used_after_a_restart(self, prod: planes.Plane) -> None:
        """A registration that was overheard cannot be replayed to the next process."""
        headers = prod.internal()
        assert (await prod.http.put(URL, json=planes.REGISTRATION, headers=headers)).status_code == 200
        await prod.context.registrar.close()
        async with planes.plane("prod", prod.store) as again:
            response = await again.http.put(URL, json=planes.REGISTRATION, headers=headers)
            assert (response.status_code, error(response)["reason"]) == (401, "replayed")
