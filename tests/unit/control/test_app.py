import re

import pytest

from tests.unit.control import planes
from traforo.api import schemas


@pytest.mark.parametrize("mode", ["dev", "prod"])
async def test_health_and_metrics_need_no_credential(mode: str) -> None:
    async with planes.plane(mode) as plane:  # type: ignore[arg-type]  # one of the two words
        response = await plane.http.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert f"service_auth_mode {float(mode == 'prod')}" in (await plane.http.get("/metrics")).text
        response = await plane.http.get("/metrics/sandboxes")
        assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert "workers_registered_total=0\n" in response.text


async def test_snapshot_shows_the_registered(dev: planes.Plane) -> None:
    assert (await dev.http.get("/metrics/sandboxes")).text.endswith("container\t-\t1\t7\n")


async def test_every_metric_is_updated_by_requests(prod: planes.Plane) -> None:
    """No metric is declared that running code never touches."""
    await prod.http.post("/sandboxes", json={}, headers=prod.client())
    await prod.http.post("/sandboxes", json={"hardware_sku": "gpu"}, headers=prod.client())
    await prod.http.post("/sandboxes", json={})
    assert prod.context.metrics.untouched() == []


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/sandboxes"),
        ("GET", "/sandboxes"),
        ("GET", f"/sandboxes/{planes.SANDBOX}"),
        ("PUT", f"/sandboxes/{planes.SANDBOX}/files"),
        ("DELETE", "/sandboxes/x"),
        ("PUT", "/internal/workers/w1/registration"),
        ("DELETE", "/internal/workers/w1/registration"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/metrics/sandboxes"),
        ("GET", "/nowhere"),
    ],
)
async def test_request_id_is_echoed(dev: planes.Plane, method: str, path: str) -> None:
    """Each answer carries the caller's request id, and a new one where the caller's is missing or no id."""
    response = await dev.http.request(method, path, headers={"x-request-id": "mine-1.2_3"})
    assert response.headers["x-request-id"] == "mine-1.2_3"
    if response.status_code >= 400:
        assert response.json()["error"]["request_id"] == "mine-1.2_3"
    for bad in ("", "a b", "a" * 129):
        found = (await dev.http.request(method, path, headers={"x-request-id": bad})).headers["x-request-id"]
        assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", found)


async def test_document_describes_the_routes(dev: planes.Plane) -> None:
    """Every route but the copies of other methods is in openapi.json, with the answers it gives."""
    document = (await dev.http.get("/openapi.json")).json()
    described = {
        (path, method): set(found["responses"])
        for path, item in document["paths"].items()
        for method, found in item.items()
    }
    assert described[("/sandboxes", "post")] >= {"307", "400", "401", "413", "503"}
    assert described[("/sandboxes", "get")] >= {"200", "400", "401"}
    assert described[("/sandboxes/{sandbox_id}", "get")] >= {"307", "400", "404", "503"}
    assert described[("/internal/workers/{worker_id}/registration", "put")] >= {"200", "400", "401", "409", "413"}
    assert described[("/internal/workers/{worker_id}/registration", "delete")] >= {"204", "401"}
    assert described[("/metrics/sandboxes", "get")] >= {"200"}
    assert len(described) == 8
    assert {"incomplete", "missing_workers"} <= set(document["components"]["schemas"]["SandboxList"]["properties"])


async def test_answers_are_as_described(dev: planes.Plane) -> None:
    schemas.Registered.model_validate_json((await dev.register()).content)


async def test_dev_refuses_pages_of_other_origins(dev: planes.Plane) -> None:
    """A web page that a developer looks at cannot make the browser create sandboxes, or register a worker."""
    headers = {"origin": "http://evil.example"}
    assert (await dev.http.post("/sandboxes", headers=headers)).status_code == 403
    assert (await dev.http.put("/internal/workers/w1/registration", headers=headers)).status_code == 403
