import dataclasses

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from traforo.control import registries
from traforo.domain import errors, ids, workers

TTL = 120.0
WORKER = workers.Worker(worker_id="w1", hostname="one.example", base_url="http://one.example:8081")
OTHER = workers.Worker(worker_id="w2", hostname="two.example", base_url="http://two.example:8081")


def registered(*known: workers.Worker, now: float = 1000.0) -> registries.State:
    state = registries.State()
    for worker in known:
        registries.apply(state, registries.register(state, worker, 0, now=now, ttl=TTL))
    return state


def test_first_registration_makes_a_member() -> None:
    """A new worker is a member with a lease, found by the hash of its host name."""
    state = registries.State()
    change = registries.register(state, WORKER, 3, now=1000.0, ttl=TTL)
    lease = workers.Lease(heartbeat_at=1000.0, expires_at=1120.0, live_sandboxes=3)
    member = workers.Member(WORKER, ids.worker_hash("one.example"), 1000.0, lease)
    assert change == registries.Change(registries.Event.REGISTERED, "w1", put=member)
    registries.apply(state, change)
    assert registries.owner(state, ids.worker_hash("ONE.example"), now=1119.9) == member


def test_register_decides_and_apply_acts() -> None:
    """Asking what a registration would change leaves the state as it was."""
    state = registries.State()
    registries.register(state, WORKER, 0, now=1000.0, ttl=TTL)
    assert state == registries.State()


def test_heartbeat_renews_the_lease_and_changes_no_fact() -> None:
    """A heartbeat keeps `registered_at`, moves the expiry, and says that only the lease is new."""
    state = registered(WORKER)
    change = registries.register(state, WORKER, 7, now=1030.0, ttl=TTL)
    assert (change.event, change.facts_changed) == (registries.Event.RENEWED, False)
    assert change.put is not None
    assert change.put.registered_at == 1000.0
    assert change.put.lease == workers.Lease(heartbeat_at=1030.0, expires_at=1150.0, live_sandboxes=7)


@pytest.mark.parametrize(
    "field, value, event",
    [
        ("base_url", "http://elsewhere:1", registries.Event.MOVED),
        ("hardware_sku", "gpu", registries.Event.CHANGED),
        ("max_live_sandboxes", 5, registries.Event.CHANGED),
    ],
)
def test_changed_facts_are_told_from_heartbeats(field: str, value: object, event: registries.Event) -> None:
    """A worker that moved or was reconfigured is routed to by its new facts at once."""
    state = registered(WORKER)
    changed = dataclasses.replace(WORKER, **{field: value})  # type: ignore[arg-type]  # the field's own type, by case
    change = registries.register(state, changed, 0, now=1030.0, ttl=TTL)
    assert (change.event, change.facts_changed) == (event, True)
    registries.apply(state, change)
    assert registries.owner(state, ids.worker_hash("one.example"), now=1031.0).worker == changed


def test_new_host_name_ends_the_old_route() -> None:
    """After a worker changed its host name its old hash leads nowhere."""
    state = registered(WORKER)
    renamed = dataclasses.replace(WORKER, hostname="new.example")
    registries.apply(state, registries.register(state, renamed, 0, now=1001.0, ttl=TTL))
    assert state.by_hash == {ids.worker_hash("new.example"): "w1"}


def test_lease_ends_at_its_expiry() -> None:
    """The last moment of a lease is before its expiry; at the expiry the worker is unavailable, not unknown."""
    state = registered(WORKER)
    digest = ids.worker_hash("one.example")
    assert registries.owner(state, digest, now=1119.999).worker == WORKER
    with pytest.raises(errors.WorkerUnavailable) as caught:
        registries.owner(state, digest, now=1120.0)
    assert caught.value.fields == {"reason": "lease_expired", "worker_id": "w1"}


def test_unknown_hash_is_not_found() -> None:
    with pytest.raises(errors.NotFound) as caught:
        registries.owner(registered(WORKER), "0" * 32, now=1000.0)
    assert caught.value.fields == {"kind": "worker", "id": "0" * 32}


def test_sweep_tells_once() -> None:
    """A lease that ended is reported by one sweep, and again only after the worker came back and went again."""
    state = registered(WORKER)
    assert registries.sweep(state, now=1119.0) == []
    [change] = registries.sweep(state, now=1120.0)
    assert change == registries.Change(registries.Event.UNAVAILABLE, "w1", facts_changed=False)
    registries.apply(state, change)
    assert registries.sweep(state, now=1130.0) == []
    back = registries.register(state, WORKER, 0, now=1140.0, ttl=TTL)
    assert (back.event, back.facts_changed) == (registries.Event.RETURNED, False)
    registries.apply(state, back)
    assert [change.event for change in registries.sweep(state, now=1260.0)] == [registries.Event.UNAVAILABLE]


def test_worker_is_forgotten_when_no_sandbox_of_it_can_live() -> None:
    """An unavailable worker stays known as long as someone may ask for a sandbox of it, and no longer."""
    state = registered(WORKER)
    end = 1120.0 + registries.FORGET_AFTER_SECONDS
    assert [change.event for change in registries.sweep(state, now=end - 1)] == [registries.Event.UNAVAILABLE]
    for change in registries.sweep(state, now=end):
        registries.apply(state, change)
    assert state == registries.State()


def test_live_host_name_cannot_be_taken() -> None:
    """Two live workers never share a host name, however it is spelled: ids route by it."""
    state = registered(WORKER)
    thief = dataclasses.replace(OTHER, hostname="One.Example")
    with pytest.raises(errors.Conflict) as caught:
        registries.register(state, thief, 0, now=1119.0, ttl=TTL)
    assert caught.value.fields == {"hostname": "One.Example"}


def test_host_name_is_inherited_when_the_lease_ended() -> None:
    """A worker that replaces a dead one under its host name takes its place."""
    state = registered(WORKER)
    heir = dataclasses.replace(OTHER, hostname="one.example")
    change = registries.register(state, heir, 0, now=1120.0, ttl=TTL)
    assert change.dropped == ("w1",)
    registries.apply(state, change)
    assert (set(state.members), state.by_hash) == ({"w2"}, {ids.worker_hash("one.example"): "w2"})


def test_deregistration_forgets_at_once_and_twice_is_fine() -> None:
    state = registered(WORKER, OTHER)
    assert registries.deregister(state, "w1", OTHER.base_url) is None
    change = registries.deregister(state, "w1", WORKER.base_url)
    assert change is not None
    registries.apply(state, change)
    assert set(state.members) == {"w2"}
    assert registries.deregister(state, "w1", WORKER.base_url) is None


def test_number_of_workers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker more than the limit is refused; a heartbeat of one that is there is not."""
    monkeypatch.setattr(registries, "MAX_WORKERS", 1)
    state = registered(WORKER)
    with pytest.raises(errors.NoCapacity) as caught:
        registries.register(state, OTHER, 0, now=1001.0, ttl=TTL)
    assert caught.value.fields == {"resource": "workers"}
    assert registries.register(state, WORKER, 0, now=1001.0, ttl=TTL).event is registries.Event.RENEWED


def test_restore_keeps_leases_but_none_longer_than_a_new_one() -> None:
    """A restart neither ends nor stretches a lease, even if the clock was set back meanwhile."""
    members = list(registered(WORKER, OTHER).members.values())
    assert registries.restore(members, now=1050.0, ttl=TTL).members == {
        member.worker.worker_id: member for member in members
    }
    turned_back = registries.restore(members, now=500.0, ttl=TTL)
    assert {member.lease.expires_at for member in turned_back.members.values()} == {620.0}


NAMES = st.sampled_from(["w1", "w2", "w3", "w4"])
HOSTS = st.sampled_from(["a", "A", "b", "c"])
URLS = st.sampled_from(["http://u1", "http://u2"])


class RegistryMachine(RuleBasedStateMachine):
    """The registry against a model that is one dictionary of what each worker said last."""

    workers_seen: Bundle[workers.Worker] = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.state = registries.State()
        self.model: dict[str, tuple[workers.Worker, float]] = {}
        self.told_unavailable: set[str] = set()
        self.now = 1000.0

    @rule(target=workers_seen, worker_id=NAMES, hostname=HOSTS, base_url=URLS)
    def make(self, worker_id: str, hostname: str, base_url: str) -> workers.Worker:
        return workers.Worker(worker_id=worker_id, hostname=hostname, base_url=base_url)

    @rule(worker=workers_seen, live=st.integers(0, 5))
    def register(self, worker: workers.Worker, live: int) -> None:
        holders = [
            name
            for name, (other, _) in self.model.items()
            if other.hostname.lower() == worker.hostname.lower() and name != worker.worker_id
        ]
        taken = any(self.now < self.model[name][1] for name in holders)
        try:
            change = registries.register(self.state, worker, live, now=self.now, ttl=TTL)
        except errors.Conflict:
            assert taken
            return
        assert not taken
        registries.apply(self.state, change)
        for name in holders:
            del self.model[name]
        self.model[worker.worker_id] = (worker, self.now + TTL)

    @rule(worker=consumes(workers_seen))
    def deregister(self, worker: workers.Worker) -> None:
        change = registries.deregister(self.state, worker.worker_id, worker.base_url)
        known = self.model.get(worker.worker_id)
        assert (change is None) == (known is None or known[0].base_url != worker.base_url)
        if change is not None:
            registries.apply(self.state, change)
            del self.model[worker.worker_id]

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0, 120.0, registries.FORGET_AFTER_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        for change in registries.sweep(self.state, now=self.now):
            registries.apply(self.state, change)
        gone = self.now - registries.FORGET_AFTER_SECONDS
        self.model = {name: value for name, value in self.model.items() if gone < value[1]}
        assert self.state.unavailable == {name for name, value in self.model.items() if value[1] <= self.now}

    @rule()
    def restart(self) -> None:
        self.state = registries.restore(list(self.state.members.values()), now=self.now, ttl=TTL)

    @invariant()
    def agrees(self) -> None:
        assert {name: (m.worker, m.lease.expires_at) for name, m in self.state.members.items()} == self.model
        assert self.state.by_hash == {ids.worker_hash(w.hostname): name for name, (w, _) in self.model.items()}
        assert self.state.unavailable <= set(self.model)

    @invariant()
    def routes_to_the_live_alone(self) -> None:
        for worker, expires_at in self.model.values():
            digest = ids.worker_hash(worker.hostname)
            if self.now < expires_at:
                assert registries.owner(self.state, digest, now=self.now).worker == worker
            else:
                with pytest.raises(errors.WorkerUnavailable):
                    registries.owner(self.state, digest, now=self.now)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
