from traforo.control import snapshots
from traforo.domain import workers


def member(name: str, *, sku: str = "", live: int = 0, expires_at: float = 100.0) -> workers.Member:
    worker = workers.Worker(
        worker_id=name,
        hostname=name,
        base_url=f"http://{name}",
        hardware_sku=sku,
        virtualizations=("container", "gvisor") if sku else ("container",),
        max_live_sandboxes=10,
    )
    return workers.Member(
        worker, name, 0.0, workers.Lease(heartbeat_at=0.0, expires_at=expires_at, live_sandboxes=live)
    )


def test_nobody() -> None:
    assert snapshots.render([], 0.0) == (
        "# traforo sandbox availability\n"
        "generated_at=1970-01-01T00:00:00.000Z\n"
        "workers_registered_total=0\n"
        "workers_active_total=0\n"
        "workers_unavailable_total=0\n"
        "live_sandboxes_total=0\n"
        "available_sandboxes_total=0\n"
        "available_sandbox_kinds_total=0\n"
        "\n"
        "virtualization\thardware_sku\tworkers\tavailable\n"
    )


def test_rows_are_sums_and_sorted() -> None:
    """Workers of a kind add up; one whose lease ended is unavailable and gives no room, and neither does a full one."""
    members = [
        member("a", live=3),
        member("b", live=12),
        member("c", sku="gpu", live=10),
        member("d", expires_at=50.0),
    ]
    assert snapshots.render(members, 50.0) == (
        "# traforo sandbox availability\n"
        "generated_at=1970-01-01T00:00:50.000Z\n"
        "workers_registered_total=4\n"
        "workers_active_total=3\n"
        "workers_unavailable_total=1\n"
        "live_sandboxes_total=25\n"
        "available_sandboxes_total=7\n"
        "available_sandbox_kinds_total=1\n"
        "\n"
        "virtualization\thardware_sku\tworkers\tavailable\n"
        "container\t-\t2\t7\n"
        "container\tgpu\t1\t0\n"
        "gvisor\tgpu\t1\t0\n"
    )
