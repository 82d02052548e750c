"""The host as an image: what is shown of it, and what is not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.worker.images import hosts, skeletons
from traforo.worker.runtimes.contract import Lower

SECRET = "do-not-show"
ROOT = os.geteuid() == 0


def write(path: Path, text: str = "x", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The root of a small host with a merged /usr."""
    root = tmp_path / "host"
    write(root / "usr/bin/sh", mode=0o755)
    write(root / "usr/bin/bash", mode=0o755)
    write(root / "usr/lib/os-release", "ID=test\n")
    for name in ("bin", "lib", "sbin"):
        link(root / name, f"usr/{name}")
    write(root / "etc/passwd", f"{SECRET}:x:0:0::/root:/bin/sh\n")
    link(root / "etc/os-release", "../usr/lib/os-release")
    return root


def build(root: Path, tmp_path: Path, *, privileged: bool = ROOT) -> tuple[Path, hosts.Host, tuple[str, ...]]:
    found = hosts.find(root)
    directory = tmp_path / "made"
    (directory / "rootfs").mkdir(parents=True)
    _, _, skipped = hosts.build(found, directory, privileged=privileged)
    return directory / "rootfs", found, skipped


def test_the_made_part_is_complete(host: Path, tmp_path: Path) -> None:
    """Every mount point and directory a program expects is there with its mode."""
    made, found, skipped = build(host, tmp_path)
    modes = {
        name: stat.S_IMODE((made / name).lstat().st_mode) for name in ("tmp", "var/tmp", "root", "proc", "home/user")
    }
    assert modes == {
        "tmp": 0o1777,
        "var/tmp": 0o1777,
        "root": 0o700,
        "proc": 0o555 if ROOT else 0o755,
        "home/user": 0o755,
    }
    for name in ("proc", "sys", "dev", "tmp", "run", "usr", "opt", "srv", "mnt", "media", "var/log", "var/cache"):
        assert (made / name).is_dir()
    assert not any((made / "usr").iterdir())
    assert (made / "bin").readlink() == Path("usr/bin")
    assert found.lowers() == (Lower(f"{host}/usr", "/usr"),)
    assert skipped == ()


def test_accounts_are_made_and_none_is_the_hosts(host: Path, tmp_path: Path) -> None:
    """Root, a user and the usual system accounts; nobody can log in with a password."""
    made, _, _ = build(host, tmp_path)
    passwd = (made / "etc/passwd").read_text().splitlines()
    assert SECRET not in "".join(passwd)
    assert passwd[0] == "root:x:0:0:root:/root:/bin/bash"
    assert passwd[-1] == "user:x:1000:1000:user:/home/user:/bin/bash"
    names = [line.split(":")[0] for line in passwd]
    shadow = [line.split(":") for line in (made / "etc/shadow").read_text().splitlines()]
    assert [fields[0] for fields in shadow] == names
    assert {fields[1] for fields in shadow} == {"*"}
    assert stat.S_IMODE((made / "etc/shadow").stat().st_mode) == 0o640
    groups = {line.split(":")[0]: line.split(":")[2] for line in (made / "etc/group").read_text().splitlines()}
    assert groups["user"] == "1000"
    assert all(line.split(":")[3] in groups.values() for line in passwd)
    assert len(set(names)) == len(names)
    assert (made / "etc/resolv.conf").read_text() == ""


def test_without_bash_the_shell_is_sh(host: Path, tmp_path: Path) -> None:
    """A small host has no bash."""
    (host / "usr/bin/bash").unlink()
    made, _, _ = build(host, tmp_path)
    assert (made / "etc/passwd").read_text().splitlines()[0].endswith(":/bin/sh")


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_owners(host: Path, tmp_path: Path) -> None:
    """Everything is root's but the home of the user."""
    write(host / "etc/skel/.bashrc", "alias")
    os.chown(host / "etc/skel/.bashrc", 1234, 1234)
    made, _, _ = build(host, tmp_path)
    owners = {str(path.relative_to(made)): path.lstat().st_uid for path in made.rglob("*") if path.lstat().st_uid != 0}
    assert owners == {"home/user": 1000, "home/user/.bashrc": 1000}
    assert (made / "etc/shadow").stat().st_gid == 42
    assert hosts.default_user(privileged=True) == "user"


def test_without_privileges_the_user_is_root(host: Path, tmp_path: Path) -> None:
    """Nothing could belong to anybody else."""
    build(host, tmp_path, privileged=False)
    assert hosts.default_user(privileged=False) == "root"


def test_files_of_the_allow_list_are_copied(host: Path, tmp_path: Path) -> None:
    """With content and time, owned by root and writable by root alone; links within the image stay links."""
    conf = write(host / "etc/ld.so.conf.d/lib.conf", "/usr/local/lib", 0o666)
    os.utime(conf, ns=(10**18, 10**18))
    write(host / "etc/ssl/certs/ca.crt", "CERTIFICATE")
    link(host / "etc/ssl/certs/1234.0", "ca.crt")
    link(host / "etc/ssl/certs/other.pem", "/usr/share/ca-certificates/other.crt")
    link(host / "etc/alternatives/vi", "/usr/bin/vim")
    link(host / "etc/localtime", "/usr/share/zoneinfo/UTC")
    write(host / "etc/ca-certificates/update.d/hook", "#!", 0o755)
    write(host / "etc/java-99-jdk/conf/a.properties", "a")
    made, _, _ = build(host, tmp_path)
    copied = made / "etc/ld.so.conf.d/lib.conf"
    assert (copied.read_text(), copied.stat().st_mtime_ns) == ("/usr/local/lib", 10**18)
    assert stat.S_IMODE(copied.stat().st_mode) == 0o644
    assert (made / "etc/ssl/certs/1234.0").readlink() == Path("ca.crt")
    assert (made / "etc/ssl/certs/other.pem").readlink() == Path("/usr/share/ca-certificates/other.crt")
    assert (made / "etc/alternatives/vi").readlink() == Path("/usr/bin/vim")
    assert (made / "etc/localtime").readlink() == Path("/usr/share/zoneinfo/UTC")
    assert (made / "etc/os-release").readlink() == Path("../usr/lib/os-release")
    assert stat.S_IMODE((made / "etc/ca-certificates/update.d/hook").stat().st_mode) == 0o755
    assert (made / "etc/java-99-jdk/conf/a.properties").read_text() == "a"


def test_nothing_else_of_the_host_is_shown(host: Path, tmp_path: Path) -> None:
    """Secrets in every place where one was ever kept: none is in the image, by content or by name."""
    for name in (
        "etc/shadow",
        "etc/machine-id",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/hosts",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/krb5.keytab",
        "etc/kubernetes/admin.conf",
        "etc/docker/config.json",
        "etc/gitconfig",
        "etc/pip.conf",
        "etc/npmrc",
        "etc/environment",
        "etc/profile",
        "etc/profile.d/proxy.sh",
        "etc/ld.so.preload",
        "etc/maven/settings.xml",
        "etc/apt/auth.conf",
        "etc/default/service",
        "etc/ssl/private/server.pem",
        "etc/ssl/certs/private/server.pem",
        "etc/ssl/certs/server.key",
        "etc/pki/tls/private/server.pem",
        "etc/pki/tls/certs/keystore.p12",
        "etc/java-99-jdk/management/jmxremote.password",
        "etc/secret.conf",
        "root/.ssh/id_rsa",
        "home/someone/.netrc",
        "var/lib/secret",
        "run/secrets/token",
        "opt/app/secret",
        "srv/data",
    ):
        write(host / name, SECRET)
    write(host / "etc/ssl/certs/combined.pem", f"{SECRET}\n-----BEGIN RSA PRIVATE KEY-----\n")
    write(host / "etc/ssl/certs/not-for-everybody.pem", SECRET, 0o640)
    write(host / "etc/ssl/certs/hidden/deep.pem", SECRET).parent.chmod(0o700)
    for name, target in (
        ("etc/ssl/certs/a.pem", "/etc/ssl/private/server.pem"),
        ("etc/ssl/certs/b.pem", "../../shadow"),
        ("etc/ssl/certs/c.pem", "/usr/../etc/shadow"),
        ("etc/ssl/certs/d.pem", "/root/.ssh/id_rsa"),
        ("etc/ssl/certs/e.pem", "a.pem"),
        ("etc/services", "/etc/shadow"),
        ("etc/fonts", "/root"),
    ):
        link(host / name, target)
    write(host / "etc/vim/vimrc", SECRET)
    (host / "etc/vim/vimrc").unlink()
    os.mkfifo(host / "etc/vim/vimrc")
    made, found, skipped = build(host, tmp_path)
    shown = [path for path in made.rglob("*") if not path.is_symlink() and path.is_file()]
    assert [path for path in shown if SECRET in path.read_text()] == []
    links = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_symlink()}
    assert links == {"bin", "lib", "sbin", "etc/mtab", "etc/os-release", "var/run", "var/lock"}
    assert skipped == ("etc/ssl/certs/combined.pem",)
    assert "etc/vim/vimrc" not in found.items


def test_files_that_are_too_large_are_left_out(host: Path, tmp_path: Path) -> None:
    """A log that grew into an allowed directory is not copied into every image."""
    write(host / "etc/magic", "x" * (4 * 1024 * 1024 + 1))
    made, _, _ = build(host, tmp_path)
    assert not (made / "etc/magic").exists()


def test_a_file_that_becomes_something_else_is_left_out(host: Path, tmp_path: Path) -> None:
    """Between looking and copying: a link to a secret, a FIFO, a file that not everybody may read any more."""
    for name in ("services", "protocols", "rpc", "magic"):
        write(host / "etc" / name, "public")
    found = hosts.find(host)
    write(host / "root/secret", SECRET)
    (host / "etc/services").unlink()
    (host / "etc/services").symlink_to("../root/secret")
    (host / "etc/protocols").unlink()
    os.mkfifo(host / "etc/protocols")
    (host / "etc/rpc").chmod(0o600)
    (host / "etc/magic").unlink()
    directory = tmp_path / "made"
    (directory / "rootfs").mkdir(parents=True)
    _, _, skipped = hosts.build(found, directory, privileged=ROOT)
    assert sorted(skipped) == ["etc/magic", "etc/protocols", "etc/rpc", "etc/services"]
    assert not any((directory / "rootfs/etc" / name).exists() for name in ("services", "protocols", "rpc", "magic"))


def test_hosts_without_a_merged_usr_show_each_directory(host: Path, tmp_path: Path) -> None:
    """Programs of /bin and libraries of /lib are layers of their own, with a place to be mounted."""
    for name in ("bin", "lib"):
        (host / name).unlink()
    write(host / "bin/sh", mode=0o755)
    write(host / "lib/ld.so")
    link(host / "lib64", "lib")
    made, found, _ = build(host, tmp_path)
    assert found.lowers() == (
        Lower(f"{host}/usr", "/usr"),
        Lower(f"{host}/bin", "/bin"),
        Lower(f"{host}/lib", "/lib"),
    )
    assert not any((made / "bin").iterdir())
    assert (made / "lib64").readlink() == Path("lib")


def test_top_level_links_out_of_the_image_are_left_out(host: Path, tmp_path: Path) -> None:
    """They would lead nowhere."""
    (host / "sbin").unlink()
    link(host / "sbin", "/opt/tools/sbin")
    made, _, _ = build(host, tmp_path)
    assert not (made / "sbin").is_symlink()


@pytest.mark.parametrize("name", ["usr/etc/npmrc", "usr/local/etc/app.conf", "usr/src/app/key", "usr/local/src/x"])
def test_settings_in_usr_that_not_everybody_may_read_are_hidden(name: str, host: Path, tmp_path: Path) -> None:
    """Root of a sandbox reads what root of the host may read, so an empty directory is mounted over them."""
    write(host / name, "public")
    assert hosts.find(host).masks == ()
    write(host / f"{name}.private", SECRET, 0o640)
    made, found, _ = build(host, tmp_path)
    masked = "/".join(name.split("/")[: -2 if name.endswith("key") else -1])
    assert found.masks == (masked,)
    assert found.lowers()[-1] == Lower(hosts.MASK, f"/{masked}")
    assert list((made.parent / hosts.MASK).iterdir()) == []
    assert stat.S_IMODE((made.parent / hosts.MASK).stat().st_mode) == 0o755


def test_closed_directories_in_usr_are_hidden(host: Path) -> None:
    """Whatever is in them."""
    write(host / "usr/local/etc/closed/x").parent.chmod(0o750)
    assert hosts.find(host).masks == ("usr/local/etc",)


def test_the_fingerprint_changes_with_what_the_image_is_made_of(host: Path) -> None:
    """And with nothing else."""
    write(host / "etc/services", "http 80/tcp")
    write(host / "etc/ld.so.cache", "1")
    seen = [hosts.find(host).fingerprint(privileged=True)]
    write(host / "etc/shadow", "new")
    write(host / "usr/bin/new", "new")
    write(host / "home/x", "new")
    assert hosts.find(host).fingerprint(privileged=True) == seen[0]
    write(host / "etc/ld.so.cache", "22")
    seen.append(hosts.find(host).fingerprint(privileged=True))
    link(host / "etc/alternatives/vi", "/usr/bin/vim")
    seen.append(hosts.find(host).fingerprint(privileged=True))
    write(host / "usr/local/etc/secret", "x", 0o600)
    seen.append(hosts.find(host).fingerprint(privileged=True))
    (host / "usr/bin/bash").unlink()
    seen.append(hosts.find(host).fingerprint(privileged=True))
    seen.append(hosts.find(host).fingerprint(privileged=False))
    assert len(set(seen)) == len(seen)


class TestUnusableHosts:
    def test_without_usr(self, tmp_path: Path) -> None:
        with pytest.raises(errors.NotFound, match=r"it has no .*usr") as caught:
            hosts.find(tmp_path)
        assert caught.value.fields == {"kind": "image", "id": "host"}
        assert caught.value.hint is not None

    def test_with_a_usr_for_root_alone(self, host: Path) -> None:
        (host / "usr").chmod(0o700)
        with pytest.raises(errors.NotFound, match="not everybody may read"):
            hosts.find(host)

    def test_without_a_shell(self, host: Path) -> None:
        (host / "usr/bin/bash").unlink()
        (host / "usr/bin/sh").chmod(0o700)
        with pytest.raises(errors.NotFound, match="no shell"):
            hosts.find(host)

    def test_without_etc(self, host: Path, tmp_path: Path) -> None:
        """Is a host all the same: the made part is enough."""
        (host / "etc").rename(host / "elsewhere")
        made, _, _ = build(host, tmp_path)
        assert (made / "etc/passwd").exists()


def test_every_reason_is_written_down() -> None:
    """Each group of the allow-list says why, and no path leads out of /etc."""
    assert all(kept.why for kept in skeletons.KEPT)
    listed = [path for kept in skeletons.KEPT for path in kept.paths]
    assert len(set(listed)) == len(listed)
    assert not any(path.startswith(("/", ".")) or ".." in path for path in listed)
