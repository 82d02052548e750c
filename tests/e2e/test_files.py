"""Files of real sandboxes: what their init, the kernel and the worker make of them together."""

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests import servers


@pytest.fixture(scope="module")
def sandbox() -> Iterator[httpx2.Client]:
    """Give a client whose URLs begin after the id of a sandbox."""
    with servers.started() as up, httpx2.Client(timeout=60) as client:
        made = client.post(f"{up.worker_url}/sandboxes", json={"disk_mib": 128, "memory_mib": 256})
        assert made.status_code == 201, made.text
        client.base_url = httpx2.URL(f"{up.worker_url}/sandboxes/{made.json()['sandbox_id']}")
        yield client


def shell(sandbox: httpx2.Client, command: str, user: str = "root") -> str:
    """Run a command and return its output."""
    done = sandbox.post("/exec", json={"command": command, "wait": True, "user": user}).json()
    assert done["exit_code"] == 0, done
    return str(done["output"])


def test_replacing(sandbox: httpx2.Client) -> None:
    """A file is replaced at once and keeps mode and owner; who has it open still reads the old one."""
    shell(sandbox, "mkdir -p /tmp/r; echo old > /tmp/r/f; chown 1:2 /tmp/r/f; chmod 640 /tmp/r/f")
    command = "exec 3< /tmp/r/f; echo open; while [ ! -e /tmp/r/go ]; do sleep 0.01; done; cat <&3"
    reader = sandbox.post("/exec", json={"command": command, "user": "root"}).json()["exec_id"]
    assert sandbox.get(f"/exec/{reader}/frames?wait=20&limit=1").json()["frames"][0]["data"] == "open\n"
    body = b"new" * 100_000
    tag = sandbox.get("/files?path=/tmp/r/f&user=root").headers["etag"]
    written = sandbox.put("/files?path=/tmp/r/f&user=root", content=body, headers={"if-match": tag})
    assert written.status_code == 200, written.text
    assert sandbox.put("/files?path=/tmp/r/f&user=root", content=b"x", headers={"if-match": tag}).status_code == 412
    assert shell(sandbox, "stat -c '%u:%g %a %s' /tmp/r/f; ls -A /tmp/r") == f"1:2 640 {len(body)}\nf\n"
    shell(sandbox, "touch /tmp/r/go")
    assert sandbox.get(f"/exec/{reader}/frames?cursor=1&wait=20&limit=1").json()["frames"][0]["data"] == "old\n"
    part = sandbox.get("/files?path=/tmp/r/f&user=root", headers={"range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"new")


def test_a_user_who_may_not(sandbox: httpx2.Client) -> None:
    """Files go by the rights of the user, in place of the old one too."""
    shell(sandbox, "mkdir -p /tmp/p; echo 1 > /tmp/p/f; chmod 755 /tmp/p; chmod 666 /tmp/p/f; echo 2 > /tmp/p/g")
    assert sandbox.put("/files?path=/tmp/p/f&user=user", content=b"in place").status_code == 200
    assert sandbox.put("/files?path=/tmp/p/g&user=user", content=b"x").status_code == 403
    assert sandbox.put("/files?path=/tmp/p/new&user=user", content=b"x").status_code == 403
    assert shell(sandbox, "cat /tmp/p/f /tmp/p/g; ls -A /tmp/p") == "in place2\nf\ng\n"


def test_there_and_back(sandbox: httpx2.Client) -> None:
    """A tree of everything goes out and in again the same."""
    shell(
        sandbox,
        "mkdir -p /tmp/t/a/b; cd /tmp/t; echo hi > a/f; ln a/f a/hard; ln -s f a/soft; ln -s /etc a/out; mkfifo pipe;"
        "chmod 4750 a/f; chown 5:6 a/b; touch -d '2001-02-03 04:05:06' a/b; head -c 3000000 /dev/zero > a/b/large;"
        "printf x > \"$(printf 'caf\\351')\"; chmod 500 a/b",
    )
    archive = sandbox.get("/files/tar?path=/tmp/t&compression=gzip&user=root")
    with tarfile.open(fileobj=io.BytesIO(archive.content), errors="surrogateescape") as opened:
        assert sorted(opened.getnames()) == sorted(
            ["a", "a/b", "a/b/large", "a/f", "a/hard", "a/out", "a/soft", "caf\udce9"]
        )
    assert sandbox.put("/files/tar?path=/tmp/u&user=root", content=archive.content).status_code == 400
    done = sandbox.put("/files/tar?path=/tmp/u&user=root&links=keep", content=archive.content)
    assert done.json().get("entries") == 8, done.text
    shell(sandbox, "rm /tmp/t/pipe")
    facts = "cd {}; find . -mindepth 1 -exec stat -c '%n %F %a %u:%g %h %N' {{}} + | sort; stat -c %Y a/b"
    assert shell(sandbox, facts.format("/tmp/u")) == shell(sandbox, facts.format("/tmp/t"))


def test_moves_and_copies(sandbox: httpx2.Client) -> None:
    """A tree is copied, and moved to where the kernel cannot rename it."""
    shell(sandbox, "mkdir -p /tmp/m/d /dev/shm; echo 1 > /tmp/m/d/f; ln -s f /tmp/m/d/l")
    body = {"from": "/tmp/m", "to": "/tmp/n", "recursive": True, "user": "root"}
    assert sandbox.post("/files/copy", json=body).json()["entries"] == 4
    body = {"from": "/tmp/n", "to": "/dev/shm/n", "user": "root"}
    moved = sandbox.post("/files/move", json=body)
    assert moved.status_code == 200, moved.text
    assert shell(sandbox, "cat /dev/shm/n/d/l; ls /tmp/n 2>&1 || true").startswith("1\n")


def test_moving_a_directory_of_the_image(sandbox: httpx2.Client) -> None:
    """What the kernel will not rename, since it lies below the sandbox's own layer, is copied and removed."""
    find = "for d in /usr/share/* /usr/lib/*; do [ -d $d ] && [ ! -L $d ] && n=$(find $d | head -60 | wc -l) &&"
    place = shell(sandbox, find + " [ $n -gt 2 ] && [ $n -lt 50 ] && echo $d && break; done").strip()
    facts = "find . -exec stat -c '%n %F %a %u %Y' {} + | sort; find . -type f -exec md5sum {} + | sort"
    before = shell(sandbox, f"cd {place}; {facts}")
    moved = sandbox.post("/files/move", json={"from": place, "to": "/usr/moved", "user": "root"})
    assert moved.status_code == 200, moved.text
    assert shell(sandbox, "cd /usr/moved; " + facts) == before
    assert sandbox.get(f"/files/stat?path={place}").json()["exists"] is False


def test_changes(sandbox: httpx2.Client) -> None:
    """What a command does is told; owners go by the names of the sandbox."""
    shell(sandbox, "mkdir -p /tmp/w")
    watch = sandbox.post("/files/watches", json={"path": "/tmp/w", "recursive": True, "user": "root"}).json()
    seen: list[dict[str, Any]] = []

    def hear(kind: str, path: str) -> None:
        for _ in range(20):
            if any((change["kind"], change["path"]) == (kind, path) for change in seen):
                return
            cursor = seen[-1]["cursor"] + 1 if seen else 0
            page = sandbox.get(f"/files/watches/{watch['watch_id']}?cursor={cursor}&wait=5").json()
            seen.extend(page["changes"])

    shell(sandbox, "mkdir /tmp/w/d; echo 1 > /tmp/w/d/f")
    hear("created", "/tmp/w/d/f")  # written before the new directory was looked at, it was never anything else
    shell(sandbox, "mv /tmp/w/d/f /tmp/w/g; rm /tmp/w/g")
    hear("deleted", "/tmp/w/g")
    told = [(change["kind"], change["path"], change["moved_from"]) for change in seen]
    assert ("created", "/tmp/w/d", None) in told
    assert ("created", "/tmp/w/g", "/tmp/w/d/f") in told
    assert told[-1] == ("deleted", "/tmp/w/g", None), json.dumps(seen)
    changed = sandbox.patch("/files", json={"path": "/tmp/w", "owner": "user", "recursive": True, "user": "root"})
    assert changed.json()["changed"] == 2
    assert shell(sandbox, "stat -c %U /tmp/w/d") == "user\n"


def test_a_sandbox_that_plays_tricks(sandbox: httpx2.Client) -> None:
    """Endless listings, files that grow and shrink, and FIFOs end every request with an answer or an end."""
    shell(sandbox, "mkdir -p /tmp/x; mkfifo /tmp/x/p; head -c 2000000 /dev/zero > /tmp/x/f; chmod -R 777 /tmp/x")
    sandbox.post(
        "/exec",
        json={"command": "cd /tmp/x; i=0; while [ $i -lt 3000 ]; do truncate -s $((i*700 % 2000000)) f; mv f g; mv g f;"
              " echo $i > n$i; rm -f n$((i-5)); i=$((i+1)); done", "user": "root"},
    )  # fmt: skip
    answered: set[int] = set()
    for _ in range(15):
        for url in ("/files?path=/tmp/x/f", "/files/tar?path=/tmp/x", "/files/search?path=/tmp/x&text=zzz"):
            try:
                answered.add(sandbox.get(url + "&user=root").status_code)
            except httpx2.RemoteProtocolError:
                answered.add(0)
        body = {"from": "/tmp/x", "to": "/tmp/y", "recursive": True, "overwrite": True, "user": "root"}
        answered.add(sandbox.post("/files/copy", json=body).status_code)
    assert answered <= {0, 200, 400, 404, 409}
    assert sandbox.get("/files/stat?path=/tmp").json()["exists"] is True
