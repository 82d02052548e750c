from typing import Any
from urllib import parse

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.control import planes
from traforo.control import redirects, routes_sandboxes
from traforo.domain import ids

SANDBOX = planes.SANDBOX
OTHER_SANDBOX = f"sbx_{ids.worker_hash('two.example')}_01K6Z8Q4T3V7WXYZ0123456788"
BASE = "http://one.example:8081"
TRICKS = rb"/sandboxes / // \ .. @ :80 evil.example http: %2f %5c %0d%0a ? # ; % a".split()
PIECES = st.sampled_from([*TRICKS, b"\r\nlocation: http://evil.example/", b"\xff", b"\t"]) | st.binary(max_size=3)


def error(response: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def refusal(response: httpx2.Response, field: str) -> tuple[object, object]:
    """Return code and one field of an error."""
    return error(response)["code"], error(response)[field]


def query(location: str) -> dict[str, str]:
    return dict(parse.parse_qsl(parse.urlsplit(location).query))


class TestCreate:
    """POST /sandboxes."""

    async def test_dev_redirects_without_a_token(self, dev: planes.Plane) -> None:
        response = await dev.http.post("/sandboxes", json={"image": "host"})
        assert (response.status_code, response.headers["location"]) == (307, f"{BASE}/sandboxes")
        assert (response.content, response.headers["cache-control"]) == (b"", "no-store")

    async def test_empty_body_is_every_default(self, dev: planes.Plane) -> None:
        assert (await dev.http.post("/sandboxes")).status_code == 307

    async def test_prod_signs_a_placement_for_the_chosen_worker(self, prod: planes.Plane) -> None:
        """The placement carries client and `jti` to this one worker, and to nobody else."""
        response = await prod.http.post("/sandboxes", json={}, headers=prod.client())
        location = response.headers["location"]
        assert (response.status_code, location.partition("?")[0]) == (307, f"{BASE}/sandboxes")
        placed = prod.context.authority.verify_placement(query(location)["placement"], "w1")
        assert (placed.client_id, placed.jti, placed.token_expires_at) == ("alice", "jti-1", prod.clock.now() + 300)

    async def test_redirect_does_not_use_up_the_token(self, prod: planes.Plane) -> None:
        """The same token may be sent again: its `jti` is used up by the worker that makes the sandbox, only there."""
        for _ in range(3):
            assert (await prod.http.post("/sandboxes", json={}, headers=prod.client())).status_code == 307
        await prod.context.registrar.write()
        assert [token.jti for token in await prod.store.used_tokens(0.0) if token.jti == "jti-1"] == []

    @pytest.mark.parametrize(
        "changes, reason",
        [
            ({"client_id": None}, "claims"),
            ({"client_id": ""}, "claims"),
            ({"client_id": 7}, "claims"),
            ({"client_id": "a" * 129}, "claims"),
            ({"jti": None}, "claims"),
            ({"jti": ["x"]}, "claims"),
            ({"iss": None}, "issuer"),
            ({"iss": "somebody"}, "issuer"),
            ({"aud": None}, "audience"),
            ({"aud": "traforo-internal"}, "audience"),
            ({"exp": None}, "claims"),
            ({"exp": 1.0}, "expired"),
            ({"exp": "never"}, "claims"),
            ({"iat": None}, "claims"),
            ({"iat": 9e9}, "not_yet_valid"),
            ({"secret": "another secret of thirty-two bytes"}, "signature"),
        ],
    )
    async def test_each_claim_is_checked(self, prod: planes.Plane, changes: dict[str, Any], reason: str) -> None:
        """A token with any claim missing or wrong gets no placement, and is counted by its reason."""
        response = await prod.http.post("/sandboxes", json={}, headers=prod.client(**changes))
        assert (response.status_code, error(response)["code"]) == (401, "unauthenticated")
        assert error(response)["reason"] == reason
        assert "location" not in response.headers
        assert prod.sample("control_auth_failures_total", reason=reason) == 1.0

    @pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eA==", "Bearer x", "Bearer a.b.c"])
    async def test_credential_must_be_a_token(self, prod: planes.Plane, header: str | None) -> None:
        headers = {} if header is None else {"authorization": header}
        response = await prod.http.post("/sandboxes", json={}, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")

    async def test_iat_may_be_five_seconds_ahead(self, prod: planes.Plane) -> None:
        soon = prod.client(iat=prod.clock.now() + 5)
        assert (await prod.http.post("/sandboxes", json={}, headers=soon)).status_code == 307
        later = prod.client(iat=prod.clock.now() + 5.1)
        assert (await prod.http.post("/sandboxes", json={}, headers=later)).status_code == 401

    async def test_sandbox_token_cannot_create(self, prod: planes.Plane) -> None:
        """The token of one sandbox opens that one and makes no other."""
        token = prod.context.authority.sign_sandbox_token(SANDBOX, "alice", prod.clock.now() + 60)
        headers = {"authorization": f"Bearer {token}"}
        assert (await prod.http.post("/sandboxes", json={}, headers=headers)).status_code == 401

    async def test_internal_token_cannot_create(self, prod: planes.Plane) -> None:
        assert (await prod.http.post("/sandboxes", json={}, headers=prod.internal())).status_code == 401

    @pytest.mark.parametrize(
        "body, field",
        [
            ({"cpu": 0}, "cpu"),
            ({"cpu": "1"}, "cpu"),
            ({"memory_mib": -1}, "memory_mib"),
            ({"ttl_seconds": 0}, "ttl_seconds"),
            ({"image": ""}, "image"),
            ({"env": {"A=B": "x"}}, "env"),
            ({"colour": "red"}, "colour"),
        ],
    )
    async def test_body_is_checked_before_anybody_is_sent_on(
        self, dev: planes.Plane, body: dict[str, Any], field: str
    ) -> None:
        response = await dev.http.post("/sandboxes", json=body)
        assert (response.status_code, error(response)["code"], error(response)["field"]) == (
            400,
            "invalid_request",
            field,
        )

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'"x"', b"null"])
    async def test_body_must_be_a_json_object(self, dev: planes.Plane, content: bytes) -> None:
        response = await dev.http.post("/sandboxes", content=content)
        assert (response.status_code, error(response)["code"]) == (400, "invalid_request")

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_body_is_limited(self, dev: planes.Plane, chunked: bool) -> None:
        """A body over 1 MiB is refused whether it says its length or not."""
        body = b'{"image": "' + b"a" * 1024 * 1024 + b'"}'

        async def pieces() -> Any:
            for at in range(0, len(body), 65536):
                yield body[at : at + 65536]

        response = await dev.http.post("/sandboxes", content=pieces() if chunked else body)
        assert (response.status_code, error(response)["limit"]) == (413, 1024 * 1024)

    async def test_credential_is_checked_before_the_body(self, prod: planes.Plane) -> None:
        assert (await prod.http.post("/sandboxes", content=b"{")).status_code == 401

    async def test_no_worker(self) -> None:
        async with planes.plane() as plane:
            response = await plane.http.post("/sandboxes", json={})
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert (error(response)["code"], error(response)["reason"]) == ("worker_unavailable", "no_worker")
            assert plane.sample("control_no_capacity_total", status_code="503", reason="no_worker") == 1.0

    async def test_no_worker_for_the_virtualization(self, dev: planes.Plane) -> None:
        response = await dev.http.post("/sandboxes", json={"virtualization": "gvisor"})
        assert (response.status_code, error(response)["reason"]) == (503, "no_worker")
        assert "'gvisor'" in error(response)["message"]

    async def test_no_matching_hardware_sku(self, dev: planes.Plane) -> None:
        response = await dev.http.post("/sandboxes", json={"hardware_sku": "gpu"})
        assert response.status_code == 503
        assert error(response) | {"message": "", "request_id": ""} == {
            "code": "no_capacity",
            "message": "",
            "request_id": "",
            "reason": "no_matching_hardware_sku",
            "resource": "hardware_sku",
        }
        counted = dev.sample("control_no_capacity_total", status_code="503", reason="no_matching_hardware_sku")
        assert counted == 1.0

    async def test_worker_whose_lease_ended_gets_nothing(self, dev: planes.Plane) -> None:
        dev.clock.move(planes.LEASE)
        assert (await dev.http.post("/sandboxes", json={})).status_code == 503

    async def test_workers_take_turns(self, dev: planes.Plane) -> None:
        await dev.register("w2", hostname="two.example", base_url="http://two.example")
        seen = [(await dev.http.post("/sandboxes", json={})).headers["location"] for _ in range(4)]
        assert sorted(seen) == [f"{BASE}/sandboxes"] * 2 + ["http://two.example/sandboxes"] * 2

    @pytest.mark.parametrize("retry, status", [(1, 307), (2, 307), (3, 503), (100, 503)])
    async def test_placement_is_retried_twice(self, dev: planes.Plane, retry: int, status: int) -> None:
        """What workers send back is placed again, with the count on it, up to the limit."""
        response = await dev.http.post(f"/sandboxes?placement_retry={retry}", json={})
        assert response.status_code == status
        if status == 307:
            assert response.headers["location"] == f"{BASE}/sandboxes?placement_retry={retry}"
            assert dev.sample("control_placement_retry_sum") == retry
        else:
            assert error(response)["reason"] == "placement_retry_exhausted"

    @pytest.mark.parametrize("retry", ["-1", "101", "x", "1.5", "", "1&placement_retry=0"])
    async def test_retry_must_be_a_count(self, dev: planes.Plane, retry: str) -> None:
        response = await dev.http.post(f"/sandboxes?placement_retry={retry}", json={})
        assert (response.status_code, error(response)["field"]) == (400, "placement_retry")

    async def test_refusing_worker_is_not_asked_again(self, dev: planes.Plane) -> None:
        response = await dev.http.post("/sandboxes?placement_retry=1&refused_by=w1", json={})
        assert (response.status_code, error(response)["reason"]) == (503, "placement_retry_exhausted")
        await dev.register("w2", hostname="two.example", base_url="http://two.example")
        for _ in range(3):
            response = await dev.http.post("/sandboxes?placement_retry=1&refused_by=w1", json={})
            assert response.headers["location"] == "http://two.example/sandboxes?placement_retry=1"

    async def test_bounce_in_prod_needs_no_second_token(self, prod: planes.Plane) -> None:
        """A client drops its credential on the way back from a worker; the worker's placement stands for it."""
        await prod.register("w2", hostname="two.example", base_url="http://two.example")
        first = await prod.http.post("/sandboxes", json={}, headers=prod.client())
        refused_by = "w1" if first.headers["location"].startswith(BASE) else "w2"
        other = "w2" if refused_by == "w1" else "w1"
        bounce = {"placement_retry": "1", "refused_by": refused_by} | query(first.headers["location"])
        second = await prod.http.post("/sandboxes", params=bounce, json={})
        assert second.status_code == 307
        placed = prod.context.authority.verify_placement(query(second.headers["location"])["placement"], other)
        assert (placed.client_id, placed.jti) == ("alice", "jti-1")

    @pytest.mark.parametrize(
        "changes", [{"refused_by": "w2"}, {"refused_by": ""}, {"placement": "x"}, {"placement": ""}]
    )
    async def test_placement_that_does_not_hold_is_no_credential(
        self, prod: planes.Plane, changes: dict[str, str]
    ) -> None:
        first = await prod.http.post("/sandboxes", json={}, headers=prod.client())
        bounce = {"placement_retry": "1", "refused_by": "w1"} | query(first.headers["location"]) | changes
        assert (await prod.http.post("/sandboxes", params=bounce, json={})).status_code == 401

    async def test_old_placement_is_no_credential(self, prod: planes.Plane) -> None:
        first = await prod.http.post("/sandboxes", json={}, headers=prod.client())
        prod.clock.move(61.0)
        bounce = {"placement_retry": "1", "refused_by": "w1"} | query(first.headers["location"])
        assert (await prod.http.post("/sandboxes", params=bounce, json={})).status_code == 401

    async def test_query_of_the_caller_is_not_passed_on(self, prod: planes.Plane) -> None:
        """Only what the control plane says reaches the worker: no parameter can be smuggled beside the placement."""
        response = await prod.http.post("/sandboxes?placement=forged&x=1", json={}, headers=prod.client())
        assert list(query(response.headers["location"])) == ["placement"]
        assert query(response.headers["location"])["placement"] != "forged"

    async def test_trace_goes_on(self, dev: planes.Plane) -> None:
        """The redirect carries the caller's trace, continued here; a caller without one gets a new one."""
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "tracestate": "a=b"}
        passed = (await dev.http.post("/sandboxes", json={}, headers=headers)).headers
        assert (passed["traceparent"][:36], passed["traceparent"][-3:]) == (f"00-{trace_id}-", "-01")
        assert passed["traceparent"] != headers["traceparent"]
        assert passed["tracestate"] == "a=b"
        assert len((await dev.http.post("/sandboxes", json={})).headers["traceparent"]) == 55

    async def test_placement_is_measured(self, dev: planes.Plane) -> None:
        await dev.http.post("/sandboxes", json={})
        await dev.http.post("/sandboxes", json={"virtualization": "vm"})
        counts = [
            dev.sample("control_placement_duration_seconds_count", result=result)
            for result in (routes_sandboxes.PLACED, "no_worker")
        ]
        assert counts == [1.0, 1.0]


class TestSendOn:
    """Everything below /sandboxes/{id}."""

    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "NOSUCH"]
    )
    async def test_every_method(self, dev: planes.Plane, method: str) -> None:
        for path in (b"", b"/", b"//", b"/exec"):
            reply = await dev.ask(method, b"/sandboxes/" + SANDBOX.encode() + path)
            assert (reply.status, reply.location) == (307, f"{BASE}/sandboxes/{SANDBOX}{path.decode()}")

    @pytest.mark.parametrize(
        "rest",
        [
            "",
            "/",
            "/exec/",
            "/files",
            "/proxy/8080/a//b/./c/../d/",
            "/proxy/8080/%2e%2e%2Fetc%2Fpasswd",
            "/proxy/8080/a%0d%0aSet-Cookie:%20x=y",
            "/proxy/8080/%00%ff%25",
            "/proxy/8080/a;b=c,d@e:f!$&'()*+=~",
        ],
    )
    @pytest.mark.parametrize("search", ["", "a=b&a=c&&d", "path=%2Ftmp%2Fa%20b&x=%0d%0a", "//evil.example/", "?"])
    async def test_target_is_kept_exactly(self, dev: planes.Plane, rest: str, search: str) -> None:
        reply = await dev.ask("GET", f"/sandboxes/{SANDBOX}{rest}".encode(), search.encode())
        assert reply.status == 307
        assert reply.location == f"{BASE}/sandboxes/{SANDBOX}{rest}" + (f"?{search}" if search else "")

    @hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        start=st.sampled_from([b"", b"/sandboxes/" + SANDBOX.encode()]),
        rest=st.lists(PIECES, max_size=6).map(b"".join),
        search=st.lists(PIECES, max_size=3).map(b"".join),
    )
    async def test_no_open_redirect(self, dev: planes.Plane, start: bytes, rest: bytes, search: bytes) -> None:
        """Whatever is asked, a location begins with the base URL of a registered worker, and is one header line."""
        reply = await dev.ask("GET", start + rest, search, {"host": "evil"})
        if reply.status == 307:
            assert reply.location is not None
            assert reply.location.startswith(f"{BASE}/sandboxes/")
            assert reply.location.isprintable()
            assert parse.urlsplit(reply.location).netloc == "one.example:8081"
        else:
            assert (reply.location, reply.status in (200, 400, 404, 405, 413)) == (None, True)

    @pytest.mark.parametrize(
        "raw",
        [
            "//evil.example/sandboxes/{id}",
            "/\\evil.example/sandboxes/{id}",
            "/sandboxes//{id}",
            "/sandboxes%2F{id}",
            "/sandboxes/%2F%2Fevil.example/{id}",
            "/sandboxes/../sandboxes/{id}",
            "/sandboxes/@evil.example/",
            "http://evil.example/sandboxes/{id}",
        ],
    )
    async def test_targets_that_look_like_hosts_lead_nowhere(self, dev: planes.Plane, raw: str) -> None:
        reply = await dev.ask("GET", raw.format(id=SANDBOX).encode(), headers={"host": "evil"})
        assert (reply.status in (400, 404), reply.location) == (True, None)

    @pytest.mark.parametrize("byte", [b"\r\nSet-Cookie: x=y", b"\n", b" ", b"\0", b"\xe9"])
    async def test_raw_control_bytes_are_refused(self, dev: planes.Plane, byte: bytes) -> None:
        """Even a server that let them through gets no header out of them."""
        for path, search in ((b"/a" + byte, b""), (b"/a", byte)):
            reply = await dev.ask("GET", b"/sandboxes/" + SANDBOX.encode() + path, search)
            assert (reply.status, reply.location) == (400, None)

    async def test_trailing_slashes_never_redirect_to_the_host_header(self, dev: planes.Plane) -> None:
        for raw in (b"/sandboxes/", b"/healthz/", b"/metrics/sandboxes/"):
            reply = await dev.ask("GET", raw, headers={"host": "evil"})
            assert (reply.status, reply.location) == (404, None)

    @pytest.mark.parametrize("mode", ["dev", "prod"])
    async def test_no_credential_is_looked_at(self, mode: Any) -> None:
        """The id alone routes, whatever credential comes along: checking it is the owner's business."""
        async with planes.plane(mode) as plane:
            await plane.register()
            for headers in ({}, {"authorization": "Bearer nonsense"}, plane.client(exp=1.0)):
                response = await plane.http.get(f"/sandboxes/{SANDBOX}", headers=headers)
                assert response.status_code == 307

    async def test_both_spellings_of_an_id(self, dev: planes.Plane) -> None:
        dns = ids.parse_sandbox_id(SANDBOX).dns
        response = await dev.http.delete(f"/sandboxes/{dns}")
        assert response.headers["location"] == f"{BASE}/sandboxes/{dns}"

    @pytest.mark.parametrize("sandbox_id", ["x", SANDBOX[:-1], SANDBOX + "0", SANDBOX.replace("sbx", "SBX"), "a" * 300])
    async def test_malformed_id(self, dev: planes.Plane, sandbox_id: str) -> None:
        response = await dev.http.get(f"/sandboxes/{sandbox_id}/exec")
        assert (response.status_code, error(response)["code"]) == (400, "malformed_id")

    async def test_unknown_worker(self, dev: planes.Plane) -> None:
        response = await dev.http.get(f"/sandboxes/{OTHER_SANDBOX}")
        assert (response.status_code, error(response)["kind"]) == (404, "worker")

    async def test_lease_that_ended(self, dev: planes.Plane) -> None:
        """503 from the end of the lease on, and 307 again with the next heartbeat."""
        dev.clock.move(planes.LEASE - 0.001)
        assert (await dev.http.get(f"/sandboxes/{SANDBOX}")).status_code == 307
        dev.clock.move(0.001)
        response = await dev.http.get(f"/sandboxes/{SANDBOX}")
        assert (response.status_code, error(response)["code"]) == (503, "worker_unavailable")
        assert error(response)["reason"] == "lease_expired"
        await dev.register()
        assert (await dev.http.get(f"/sandboxes/{SANDBOX}")).status_code == 307

    async def test_too_long(self, dev: planes.Plane) -> None:
        response = await dev.http.get(f"/sandboxes/{SANDBOX}/files?path=/{'a' * redirects.MAX_TARGET_BYTES}")
        assert (response.status_code, error(response)["limit"]) == (413, redirects.MAX_TARGET_BYTES)

    async def test_body_is_not_limited_and_not_read(self, dev: planes.Plane) -> None:
        """How long a file may be is the owner's business: the answer does not depend on it."""
        body = b"x" * (2 * 1024 * 1024)
        response = await dev.http.put(f"/sandboxes/{SANDBOX}/files?path=/a", content=body)
        assert response.status_code == 307

    async def test_nothing_is_read_from_the_store(self, dev: planes.Plane, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> None:
            raise AssertionError

        for name in ("members", "used_tokens", "write"):
            monkeypatch.setattr(dev.store, name, fail)
        assert (await dev.http.get(f"/sandboxes/{SANDBOX}/exec")).status_code == 307
        assert (await dev.http.post("/sandboxes", json={})).status_code == 307

    async def test_moved_worker(self, dev: planes.Plane) -> None:
        await dev.register(base_url="https://new.example")
        response = await dev.http.get(f"/sandboxes/{SANDBOX}")
        assert response.headers["location"] == f"https://new.example/sandboxes/{SANDBOX}"


class TestList:
    """GET /sandboxes."""

    @staticmethod
    def page(*names: str, cursor: str | None = None) -> planes.WorkerAnswer:
        sandboxes = [{"sandbox_id": name, "state": "running"} for name in names]
        return lambda _: httpx2.Response(200, json={"sandboxes": sandboxes, "next_cursor": cursor})

    async def test_one_worker_is_simply_its_page(self, dev: planes.Plane) -> None:
        dev.answers["one.example"] = self.page(SANDBOX, cursor=SANDBOX[-26:])
        response = await dev.http.get("/sandboxes?limit=1")
        assert (response.status_code, response.json()) == (
            200,
            {
                "sandboxes": [{"sandbox_id": SANDBOX, "state": "running"}],
                "next_cursor": SANDBOX[-26:],
                "incomplete": False,
                "missing_workers": [],
            },
        )

    async def test_pages_are_merged(self, dev: planes.Plane) -> None:
        await dev.register("w2", hostname="two.example", base_url="http://two.example")
        dev.answers["one.example"] = self.page(SANDBOX)
        dev.answers["two.example"] = self.page(OTHER_SANDBOX)
        found = (await dev.http.get("/sandboxes")).json()
        assert [sandbox["sandbox_id"] for sandbox in found["sandboxes"]] == [SANDBOX, OTHER_SANDBOX]

    async def test_query_goes_to_every_worker(self, dev: planes.Plane) -> None:
        dev.answers["one.example"] = self.page()
        await dev.http.get(f"/sandboxes?limit=7&cursor={SANDBOX[-26:]}&state=running", headers={"x-request-id": "r1"})
        [asked] = dev.asked
        assert dict(asked.url.params) == {"limit": "7", "cursor": SANDBOX[-26:], "state": "running"}
        assert (asked.headers["x-request-id"], "traceparent" in asked.headers) == ("r1", True)

    async def test_silent_worker_is_told(self, dev: planes.Plane) -> None:
        await dev.register("w2", hostname="two.example", base_url="http://two.example")
        dev.answers["one.example"] = self.page(SANDBOX)
        found = (await dev.http.get("/sandboxes")).json()
        assert (len(found["sandboxes"]), found["incomplete"], found["missing_workers"]) == (1, True, ["w2"])

    async def test_worker_whose_lease_ended_is_told_and_not_asked(self, dev: planes.Plane) -> None:
        dev.clock.move(planes.LEASE)
        found = (await dev.http.get("/sandboxes")).json()
        assert (found["incomplete"], found["missing_workers"], dev.asked) == (True, ["w1"], [])

    async def test_no_worker_is_an_empty_list(self) -> None:
        async with planes.plane() as plane:
            found = (await plane.http.get("/sandboxes")).json()
            assert found == {"sandboxes": [], "next_cursor": None, "incomplete": False, "missing_workers": []}

    async def test_prod_asks_on_behalf_of_the_client(self, prod: planes.Plane) -> None:
        """The worker is asked with an internal token and the client's name, and the client's `jti` is not used up."""
        prod.answers["one.example"] = self.page()
        for _ in range(2):
            assert (await prod.http.get("/sandboxes", headers=prod.client())).status_code == 200
        for asked in prod.asked:
            prod.context.authority.verify_internal(asked.headers["authorization"], "w1")
        assert [asked.headers["x-traforo-client-id"] for asked in prod.asked] == ["alice", "alice"]

    async def test_caller_cannot_name_another_client(self, prod: planes.Plane) -> None:
        prod.answers["one.example"] = self.page()
        await prod.http.get("/sandboxes", headers=prod.client() | {"x-traforo-client-id": "bob"})
        assert [asked.headers.get_list("x-traforo-client-id") for asked in prod.asked] == [["alice"]]

    async def test_prod_asks_for_a_credential(self, prod: planes.Plane) -> None:
        assert (await prod.http.get("/sandboxes")).status_code == 401
        assert (await prod.http.get("/sandboxes", headers=prod.internal())).status_code == 401
        assert prod.asked == []

    @pytest.mark.parametrize(
        "search", ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=", "state=dead", "limit=1&limit=2"]
    )
    async def test_query_is_checked(self, dev: planes.Plane, search: str) -> None:
        response = await dev.http.get(f"/sandboxes?{search}")
        assert (response.status_code, error(response)["field"]) == (400, search.partition("=")[0])
