"""Routes of sandboxes over HTTP: what each answers, to whom, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fakes import workers
from traforo.api import schemas
from traforo.domain import clocks, errors, ids, states

KEY = {"Idempotency-Key": "the key"}
UNKNOWN = str(ids.SandboxId(ids.worker_hash("here"), "0" * 26))


@pytest.fixture
async def http(worker: workers.FakeWorker) -> AsyncIterator[httpx2.AsyncClient]:
    async with worker.client() as client:
        yield client


@pytest.fixture
async def prod_http(prod: workers.FakeWorker) -> AsyncIterator[httpx2.AsyncClient]:
    async with prod.client() as client:
        yield client


def code(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and error code; every error carries the request's id."""
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, error["code"]


async def create(http: httpx2.AsyncClient, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = await http.post("/sandboxes", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


class TestCreate:
    async def test_a_sandbox_is_made(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """The answer is complete, and every field says what was asked for."""
        asked: dict[str, Any] = {
            "image": "host",
            "cpu": 0.5,
            "memory_mib": 128,
            "disk_mib": 64,
            "disk_kind": "tmpfs",
            "pids": 100,
            "virtualization": "container",
            "ttl_seconds": 90,
            "env": {"A": "1"},
            "metadata": {"k": "v"},
            "name": "mine",
            "idle_seconds": 30,
            "on_expiry": "kill",
            "prepare": ["python"],
        }
        answer = await create(http, **asked)
        found = schemas.CreatedSandbox.model_validate_json(httpx2.Response(200, json=answer).content)
        now = worker.clock.now()
        assert found.model_dump() == {
            **{name: asked[name] for name in asked if name not in {"env", "ttl_seconds", "on_expiry", "prepare"}},
            "sandbox_id": answer["sandbox_id"],
            "dns_id": ids.parse_sandbox_id(answer["sandbox_id"]).dns,
            "disk_kind": states.DiskKind.TMPFS,
            "state": states.SandboxState.RUNNING,
            "reason": None,
            "created_at": clocks.rfc3339(now),
            "expires_at": clocks.rfc3339(now + 90),
            "ended_at": None,
            "idle_at": clocks.rfc3339(now + 30),
            "last_activity_at": clocks.rfc3339(now),
            "limits_enforced": ["cpu", "disk", "memory", "pids"],
            "connect_url": worker.settings.base_url,
            "token": None,
            "start_type": states.StartType.COLD,
            "timings_ms": {"accepted_to_admitted": 0.0, "admitted_to_ready": 0.0, "total": 0.0},
        }

    async def test_nothing_asked_for_gives_the_defaults(
        self, worker: workers.FakeWorker, http: httpx2.AsyncClient
    ) -> None:
        """An empty body is a sandbox of one core, its part of the memory, for half an hour."""
        answer = await http.post("/sandboxes")
        found = answer.json()
        assert answer.status_code == 201
        assert (found["image"], found["virtualization"], found["name"]) == ("host", "container", None)
        assert (found["cpu"], found["memory_mib"], found["disk_mib"], found["pids"]) == (1.0, 2048, 1024, 512)
        assert found["expires_at"] == clocks.rfc3339(worker.clock.now() + 1800)

    @pytest.mark.parametrize(
        "body, field",
        [
            ({"cpu": 0}, "cpu"),
            ({"cpu": 0.001}, "cpu"),
            ({"cpu": 8.1}, "cpu"),
            ({"cpu": "1"}, "cpu"),
            ({"memory_mib": 15}, "memory_mib"),
            ({"memory_mib": 16_385}, "memory_mib"),
            ({"memory_mib": 100, "disk_mib": 101}, "disk_mib"),
            ({"disk_kind": "disk", "disk_mib": 10_001}, "disk_mib"),
            ({"disk_kind": "paper"}, "disk_kind"),
            ({"pids": 1}, "pids"),
            ({"ttl_seconds": 0.5}, "ttl_seconds"),
            ({"ttl_seconds": 7 * 86400 + 1}, "ttl_seconds"),
            ({"virtualization": "vm"}, "virtualization"),
            ({"image": ""}, "image"),
            ({"env": {"A=B": "1"}}, "env"),
            ({"env": {"A": 1}}, "env.A"),
            ({"metadata": []}, "metadata"),
            ({"name": "x" * 129}, "name"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    async def test_what_contradicts_the_contract_is_refused(
        self, worker: workers.FakeWorker, http: httpx2.AsyncClient, body: dict[str, Any], field: str
    ) -> None:
        """400 with the field named, and nothing made."""
        answer = await http.post("/sandboxes", json=body)
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["field"] == field
        assert worker.unused

    @pytest.mark.parametrize("content", [b"{", b"[]", b"nonsense", b'{"cpu": 1e999}', b'{"cpu": NaN}', b"\xff"])
    async def test_what_is_no_body_is_refused(self, http: httpx2.AsyncClient, content: bytes) -> None:
        """400 whatever the bytes are."""
        assert code(await http.post("/sandboxes", content=content)) == (400, "invalid_request")

    async def test_a_large_disk_in_memory_has_a_hint(self, http: httpx2.AsyncClient) -> None:
        """The caller is told what to ask for."""
        answer = await http.post("/sandboxes", json={"memory_mib": 64, "disk_mib": 128})
        assert "disk_kind 'disk'" in answer.json()["error"]["hint"]

    async def test_env_and_metadata_are_bounded(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """24 KiB together, and what the label cannot hold although it is less."""
        half = "x" * 12_288
        assert code(await http.post("/sandboxes", json={"env": {"A": half}, "metadata": {"B": half}})) == (
            413,
            "too_large",
        )
        answer = await http.post("/sandboxes", json={"metadata": {"B": "\x01" * 20_000}})
        assert code(answer) == (413, "too_large")
        assert worker.unused

    async def test_a_large_body_is_refused(self, http: httpx2.AsyncClient) -> None:
        """Over a mebibyte, before anybody looks at it."""
        answer = await http.post("/sandboxes", content=b" " * (1024 * 1024 + 1))
        assert code(answer) == (413, "too_large")

    async def test_an_unknown_image(self, http: httpx2.AsyncClient) -> None:
        """404, and it says what was not found."""
        answer = await http.post("/sandboxes", json={"image": "missing"})
        assert code(answer) == (404, "not_found")
        assert answer.json()["error"]["kind"] == "image"

    async def test_a_failed_start(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """422 with the stage, and the record that can be read."""
        worker.spawner.refuse.append(errors.StartFailed("cannot mount", stage="mounts", errno_name="EPERM"))
        answer = await http.post("/sandboxes")
        error = answer.json()["error"]
        assert code(answer) == (422, "start_failed")
        assert (error["stage"], error["errno_name"]) == ("mounts", "EPERM")
        found = (await http.get(f"/sandboxes/{error['sandbox_id']}")).json()
        assert (found["state"], found["reason"]) == ("failed", "failed_to_start")

    @pytest.mark.may_block("the traceback in the log is made from source files")
    async def test_a_defect_says_nothing(self, http: httpx2.AsyncClient) -> None:
        """500 with the request id alone."""
        answer = await http.post("/sandboxes", json={"image": "broken"})
        assert code(answer) == (500, "internal")
        assert "defect" not in answer.text

    async def test_no_room(self, tmp_path: Path) -> None:
        """503 with the cap, and a hint when to come back."""
        async with workers.made(tmp_path, max_live_sandboxes=1) as worker, worker.client() as http:
            await create(http)
            answer = await http.post("/sandboxes")
            assert code(answer) == (503, "no_capacity")
            assert answer.json()["error"]["resource"] == "sandboxes"
            assert "retry-after" in answer.headers

    async def test_another_kind_of_machine(self, tmp_path: Path) -> None:
        """Refused before any side effect, so that it may be placed elsewhere; its own kind is fine."""
        async with workers.made(tmp_path, hardware_sku="gpu-1") as worker, worker.client() as http:
            answer = await http.post("/sandboxes", json={"hardware_sku": "gpu-2"})
            assert code(answer) == (503, "no_capacity")
            assert answer.json()["error"]["resource"] == "hardware_sku"
            await create(http, hardware_sku="gpu-1")

    async def test_a_stopping_worker(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """503: another one can take it."""
        worker.supervisor.cordon()
        assert code(await http.post("/sandboxes")) == (503, "worker_unavailable")


class TestRepeats:
    async def test_the_same_request_is_the_same_sandbox(
        self, worker: workers.FakeWorker, http: httpx2.AsyncClient
    ) -> None:
        """However it is spelled; the answer is the same."""
        bodies = (b'{"cpu": 1, "env": {"A": "1", "B": "2"}}', b'{"env":{"B":"2","A":"1"},"cpu":1.0}')
        first, second = [await http.post("/sandboxes", content=body, headers=KEY) for body in bodies]
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert worker.spawner.creates == 1

    async def test_another_request_is_a_conflict(self, http: httpx2.AsyncClient) -> None:
        """409, with a way out."""
        await create(http, KEY, cpu=1)
        answer = await http.post("/sandboxes", json={"cpu": 2}, headers=KEY)
        assert code(answer) == (409, "conflict")
        assert "Idempotency-Key" in answer.json()["error"]["hint"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
    async def test_a_key_has_a_form(self, http: httpx2.AsyncClient, key: str) -> None:
        """400 otherwise."""
        answer = await http.post("/sandboxes", headers={"Idempotency-Key": key})
        assert code(answer) == (400, "invalid_request")

    async def test_a_token_may_ask_again_with_its_key(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient
    ) -> None:
        """The answer was lost: the same token and key get the sandbox that it paid for; without the key it is used."""
        headers = prod.bearer()
        first = await create(prod_http, headers | KEY)
        again = await create(prod_http, headers | KEY)
        assert again["sandbox_id"] == first["sandbox_id"]
        assert code(await prod_http.post("/sandboxes", headers=headers)) == (401, "unauthenticated")

    async def test_keys_of_others_are_their_own(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient) -> None:
        """The same key of another client makes another sandbox."""
        first = await create(prod_http, prod.bearer("alice") | KEY)
        second = await create(prod_http, prod.bearer("bob") | KEY)
        assert first["sandbox_id"] != second["sandbox_id"]


class TestRead:
    async def test_a_sandbox_by_either_id(self, http: httpx2.AsyncClient) -> None:
        """The canonical and the DNS form; the answer is that of the create without what belongs to it alone."""
        made = await create(http)
        expected = {k: v for k, v in made.items() if k not in {"connect_url", "token", "start_type", "timings_ms"}}
        for name in ("sandbox_id", "dns_id"):
            answer = await http.get(f"/sandboxes/{made[name]}")
            assert (answer.status_code, answer.json()) == (200, expected)
            assert schemas.Sandbox.model_validate_json(answer.content).sandbox_id == made["sandbox_id"]

    @pytest.mark.parametrize(
        "name", ["x", "sbx_1", UNKNOWN[:-1], UNKNOWN + "0", "%00", "g".join(UNKNOWN.split("6", 1))]
    )
    @pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
    async def test_a_malformed_id(self, http: httpx2.AsyncClient, method: str, name: str) -> None:
        """400 on every route."""
        path = f"/sandboxes/{name}" + ("/lease?ttl_seconds=5" if method == "PATCH" else "")
        assert code(await http.request(method, path)) == (400, "malformed_id")

    @pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
    async def test_an_unknown_id(self, http: httpx2.AsyncClient, method: str) -> None:
        """404 on every route."""
        path = f"/sandboxes/{UNKNOWN}" + ("/lease?ttl_seconds=5" if method == "PATCH" else "")
        assert code(await http.request(method, path)) == (404, "not_found")

    async def test_an_ended_one_for_an_hour(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """With state, reason and time of its end; then it is not found."""
        made = await create(http)
        await http.delete(f"/sandboxes/{made['sandbox_id']}")
        found = (await http.get(f"/sandboxes/{made['sandbox_id']}")).json()
        assert (found["state"], found["reason"]) == ("stopped", "deleted")
        assert found["ended_at"] == clocks.rfc3339(worker.clock.now())
        worker.clock.move(3600)
        worker.supervisor.tick()
        assert code(await http.get(f"/sandboxes/{made['sandbox_id']}")) == (404, "not_found")

    async def test_one_that_is_being_killed(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """`stopping`, and no reason yet: that is for what has ended."""
        made = await create(http)
        worker.spawner.kill_gate = asyncio.Event()
        delete = asyncio.create_task(http.delete(f"/sandboxes/{made['sandbox_id']}"))
        await workers.until(lambda: worker.spawner.kills)
        found = (await http.get(f"/sandboxes/{made['sandbox_id']}")).json()
        assert (found["state"], found["reason"], found["ended_at"]) == ("stopping", None, None)
        worker.spawner.kill_gate.set()
        assert (await delete).status_code == 204


class TestList:
    async def test_pages_newest_first(self, http: httpx2.AsyncClient) -> None:
        """Each sandbox once, ended ones too, by cursor; a page of one state."""
        made = [(await create(http))["sandbox_id"] for _ in range(5)]
        await http.delete(f"/sandboxes/{made[0]}")
        newest = sorted(made, reverse=True)
        first = (await http.get("/sandboxes?limit=3")).json()
        assert [one["sandbox_id"] for one in first["sandboxes"]] == newest[:3]
        second = (await http.get(f"/sandboxes?limit=3&cursor={first['next_cursor']}")).json()
        assert [one["sandbox_id"] for one in second["sandboxes"]] == newest[3:]
        assert second["next_cursor"] is None
        stopped = await http.get("/sandboxes?state=stopped")
        assert [one["sandbox_id"] for one in stopped.json()["sandboxes"]] == [made[0]]
        assert len(schemas.SandboxPage.model_validate_json(stopped.content).sandboxes) == 1

    @pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "state=x", "limit=1&limit=2"])
    async def test_a_query_that_does_not_fit(self, http: httpx2.AsyncClient, query: str) -> None:
        """400 with the parameter named."""
        answer = await http.get(f"/sandboxes?{query}")
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["field"] == query.partition("=")[0]


class TestLease:
    async def test_a_renewal(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """The lease ends that long from now, and the sandbox says so."""
        made = await create(http, ttl_seconds=30)
        worker.clock.move(10)
        answer = await http.patch(f"/sandboxes/{made['sandbox_id']}/lease?ttl_seconds=60")
        expires_at = clocks.rfc3339(worker.clock.now() + 60)
        assert answer.json() == {
            "sandbox_id": made["sandbox_id"],
            "expires_at": expires_at,
            "idle_seconds": None,
            "token": None,
        }
        assert schemas.Lease.model_validate_json(answer.content).expires_at == expires_at
        assert (await http.get(f"/sandboxes/{made['sandbox_id']}")).json()["expires_at"] == expires_at

    @pytest.mark.parametrize("query", ["", "ttl_seconds=0", "ttl_seconds=0.5", "ttl_seconds=x", "ttl_seconds=9999999"])
    async def test_a_length_that_cannot_be(self, http: httpx2.AsyncClient, query: str) -> None:
        """400 with the field named."""
        made = await create(http)
        answer = await http.patch(f"/sandboxes/{made['sandbox_id']}/lease?{query}")
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["field"] == "ttl_seconds"

    async def test_an_idle_limit(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """It is set, left alone and taken away apart from the lease; the sandbox says when it would end."""
        made = await create(http, ttl_seconds=600)
        url = f"/sandboxes/{made['sandbox_id']}"
        answer = await http.patch(f"{url}/lease?idle_seconds=20")
        assert (answer.json()["idle_seconds"], answer.json()["expires_at"]) == (20, made["expires_at"])
        worker.clock.move(5)
        shown = (await http.get(url)).json()  # looking is not using
        assert shown["idle_at"] == clocks.rfc3339(worker.clock.now() + 15)
        assert shown["last_activity_at"] == clocks.rfc3339(worker.clock.now() - 5)
        answer = await http.patch(f"{url}/lease?ttl_seconds=60")
        assert answer.json()["idle_seconds"] == 20
        assert (await http.get(url)).json()["idle_at"] == clocks.rfc3339(worker.clock.now() + 20)
        with worker.supervisor.get(ids.parse_sandbox_id(made["sandbox_id"])).activity.hold():
            assert (await http.get(url)).json()["idle_at"] is None
        assert (await http.patch(f"{url}/lease?idle_seconds=0")).json()["idle_seconds"] is None
        shown = (await http.get(url)).json()
        assert (shown["idle_seconds"], shown["idle_at"]) == (None, None)

    @pytest.mark.parametrize("query", ["idle_seconds=4.9", "idle_seconds=-1", "idle_seconds=9999999"])
    async def test_an_idle_limit_that_cannot_be(self, http: httpx2.AsyncClient, query: str) -> None:
        """400 with the field named, and the lease as it was."""
        made = await create(http)
        url = f"/sandboxes/{made['sandbox_id']}"
        answer = await http.patch(f"{url}/lease?ttl_seconds=5&{query}")
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["field"] == "idle_seconds"
        assert (await http.get(url)).json()["expires_at"] == made["expires_at"]

    async def test_an_ended_sandbox(self, http: httpx2.AsyncClient) -> None:
        """409: there is nothing to renew."""
        made = await create(http)
        await http.delete(f"/sandboxes/{made['sandbox_id']}")
        assert code(await http.patch(f"/sandboxes/{made['sandbox_id']}/lease?ttl_seconds=5")) == (409, "conflict")


class TestDelete:
    async def test_it_is_dead_when_answered(self, worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
        """204 when it is dead, and again 204; concurrent deletes too."""
        made = await create(http)
        url = f"/sandboxes/{made['sandbox_id']}"
        answers = await asyncio.gather(*(http.delete(url) for _ in range(5)))
        answers.append(await http.delete(url))
        assert {(answer.status_code, answer.content) for answer in answers} == {(204, b"")}
        assert worker.spawner.kills == {made["sandbox_id"]: 1}
        assert worker.unused


class TestProd:
    async def test_an_owner_has_the_use_of_a_sandbox(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient
    ) -> None:
        """With any token of the same client, and with the sandbox's own."""
        made = await create(prod_http, prod.bearer())
        url = f"/sandboxes/{made['sandbox_id']}"
        renewals = []
        for headers in (prod.bearer(), {"authorization": f"Bearer {made['token']}"}):
            assert (await prod_http.get(url, headers=headers)).status_code == 200
            renewals.append(await prod_http.patch(f"{url}/lease?ttl_seconds=60", headers=headers))
        assert [answer.status_code for answer in renewals] == [200, 200]
        token = {"authorization": f"Bearer {renewals[1].json()['token']}"}
        assert (await prod_http.delete(url, headers=token)).status_code == 204
        assert (await prod_http.delete(url, headers=token)).status_code == 204

    @pytest.mark.parametrize("route", ["GET ", "DELETE ", "PATCH /lease?ttl_seconds=5"])
    async def test_nobody_else_has(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient, route: str) -> None:
        """403 to another client and to the token of another sandbox, 401 to nobody; it lives on."""
        made, other = [await create(prod_http, prod.bearer(name)) for name in ("alice", "bob")]
        method, _, rest = route.partition(" ")
        url = f"/sandboxes/{made['sandbox_id']}{rest}"
        assert code(await prod_http.request(method, url, headers=prod.bearer("bob"))) == (403, "forbidden")
        assert code(await prod_http.request(method, url)) == (401, "unauthenticated")
        foreign = {"authorization": f"Bearer {other['token']}"}
        assert code(await prod_http.request(method, url, headers=foreign)) == (403, "forbidden")
        assert made["sandbox_id"] in prod.spawner.live

    async def test_a_list_is_the_callers(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient) -> None:
        """Nobody sees a sandbox of another client; the token of one sandbox lists nothing."""
        made, _ = [await create(prod_http, prod.bearer(name)) for name in ("alice", "bob")]
        page = (await prod_http.get("/sandboxes", headers=prod.bearer("alice"))).json()
        assert [one["sandbox_id"] for one in page["sandboxes"]] == [made["sandbox_id"]]
        token = {"authorization": f"Bearer {made['token']}"}
        assert code(await prod_http.get("/sandboxes", headers=token)) == (401, "unauthenticated")
        assert code(await prod_http.get("/sandboxes")) == (401, "unauthenticated")

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "else"},
            {"aud": "else"},
            {"aud": "traforo-internal"},
            {"exp": 1},
            {"iat": 2e9},
            {"client_id": ""},
            {"client_id": "x" * 129},
            {"jti": None},
        ],
    )
    async def test_a_token_that_does_not_hold(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient, claims: dict[str, Any]
    ) -> None:
        """401 for whatever is wrong with it, and nothing made."""
        claims = {"client_id": "alice", **claims}
        answer = await prod_http.post("/sandboxes", headers=prod.bearer(**claims))
        assert code(answer) == (401, "unauthenticated")
        assert prod.unused

    async def test_a_token_creates_once(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient) -> None:
        """The second create with it is a replay; everything else it may do until it expires."""
        headers = prod.bearer()
        made = await create(prod_http, headers)
        answer = await prod_http.post("/sandboxes", headers=headers)
        assert code(answer) == (401, "unauthenticated")
        assert answer.json()["error"]["reason"] == "replayed"
        assert (await prod_http.get(f"/sandboxes/{made['sandbox_id']}", headers=headers)).status_code == 200

    async def test_a_refused_create_uses_nothing_up(self, tmp_path: Path) -> None:
        """No room here: the same token may create elsewhere, or here when there is room again."""
        secret = {"jwt_secret": workers.SECRET}
        async with workers.made(tmp_path, auth=secret, max_live_sandboxes=1) as worker, worker.client() as http:
            first = await create(http, worker.bearer())
            headers = worker.bearer()
            assert code(await http.post("/sandboxes", headers=headers)) == (503, "no_capacity")
            await http.delete(f"/sandboxes/{first['sandbox_id']}", headers=headers)
            await create(http, headers)

    async def test_a_placement_creates_once_and_here(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient
    ) -> None:
        """Without a credential of its own, for its client; not twice, not with its token too, not elsewhere."""
        until = prod.clock.now() + 300
        placement = prod.authority.sign_placement("alice", "the jti", until, prod.settings.worker_id)
        answer = await prod_http.post(f"/sandboxes?placement={placement}")
        assert answer.status_code == 201
        url = f"/sandboxes/{answer.json()['sandbox_id']}"
        assert (await prod_http.get(url, headers=prod.bearer("alice"))).status_code == 200
        assert code(await prod_http.post(f"/sandboxes?placement={placement}")) == (401, "unauthenticated")
        own = prod.bearer("alice", jti="the jti")
        assert code(await prod_http.post("/sandboxes", headers=own)) == (401, "unauthenticated")
        elsewhere = prod.authority.sign_placement("alice", "another jti", until, "another_worker")
        answer = await prod_http.post(f"/sandboxes?placement={elsewhere}", headers=prod.bearer())
        assert code(answer) == (401, "unauthenticated")

    @pytest.mark.parametrize("placement", ["", "x", "a.b.c"])
    async def test_what_is_no_placement(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient, placement: str
    ) -> None:
        """401, even beside a token that would do: somebody has tampered with the redirect."""
        answer = await prod_http.post(f"/sandboxes?placement={placement}", headers=prod.bearer())
        assert code(answer) == (401, "unauthenticated")

    async def test_used_tokens_survive_a_restart(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient) -> None:
        """By the label of the live sandbox where the journal missed it, by the journal where it is gone."""
        live, gone = prod.bearer(), prod.bearer()
        made = await create(prod_http, gone)
        await prod_http.delete(f"/sandboxes/{made['sandbox_id']}", headers=gone)
        await prod.journal.flush()
        await create(prod_http, live)
        prod = await prod.crash()
        async with prod.client() as http:
            for headers in (live, gone):
                assert code(await http.post("/sandboxes", headers=headers)) == (401, "unauthenticated")
        await prod.close()

    async def test_the_control_plane_acts_for_a_client(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient
    ) -> None:
        """With an internal token, once each, and with no more rights than the client it names."""
        made, _ = [await create(prod_http, prod.bearer(name)) for name in ("alice", "bob")]

        def internal(client: str, worker_id: str = prod.settings.worker_id) -> dict[str, str]:
            token = prod.authority.sign_internal(worker_id)
            return {"authorization": f"Bearer {token}", "X-Traforo-Client-Id": client}

        headers = internal("alice")
        page = (await prod_http.get("/sandboxes", headers=headers)).json()
        assert [one["sandbox_id"] for one in page["sandboxes"]] == [made["sandbox_id"]]
        assert code(await prod_http.get("/sandboxes", headers=headers)) == (401, "unauthenticated")
        url = f"/sandboxes/{made['sandbox_id']}"
        assert (await prod_http.get(url, headers=internal("alice"))).status_code == 200
        assert code(await prod_http.get(url, headers=internal("bob"))) == (403, "forbidden")
        assert code(await prod_http.get(url, headers=internal("alice", "other"))) == (401, "unauthenticated")
        assert code(await prod_http.get(url, headers=internal(""))) == (400, "invalid_request")

    async def test_a_client_cannot_act_for_another(
        self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient
    ) -> None:
        """The header counts with an internal token alone, and an internal token without the header is nobody's."""
        made = await create(prod_http, prod.bearer("alice"))
        forged = prod.bearer("bob") | {"X-Traforo-Client-Id": "alice"}
        for url in ("/sandboxes", f"/sandboxes/{made['sandbox_id']}"):
            assert code(await prod_http.get(url, headers=forged)) == (401, "unauthenticated")
            bare = {"authorization": f"Bearer {prod.authority.sign_internal(prod.settings.worker_id)}"}
            assert code(await prod_http.get(url, headers=bare)) == (401, "unauthenticated")

    async def test_failures_are_counted(self, prod: workers.FakeWorker, prod_http: httpx2.AsyncClient) -> None:
        """By reason."""
        await prod_http.post("/sandboxes")
        await prod_http.post("/sandboxes", headers=prod.bearer(iss="else"))
        counter = prod.metrics.worker_auth_failures_total
        assert [counter.labels(reason=reason)._value.get() for reason in ("missing", "issuer")] == [1, 1]
