"""What the root of the `host` image holds beside the host's /usr: directories, made files, and which files of /etc are
copied.

Pure data and text. The made part is the same on every host. The copied part is an allow-list, never "all but": of /etc
only what programs in /usr need in order to run as their packager meant it, and of that only what everybody on the host
may read. Left out on purpose, though harmless on most hosts: anything that may hold a credential or name the site
(gitconfig, pip.conf, npmrc, wgetrc, maven's settings.xml, apt, ssh, profile.d, default), anything of a service, and
every account of the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 2
"""Goes up when anything here changes what a sandbox sees, so that a root made by an older worker is made anew."""

USER = "user"
USER_ID = 1000
HOME = f"/home/{USER}"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV: Mapping[str, str] = {"PATH": PATH, "LANG": "C.UTF-8"}

TOP_LEVEL = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Names beside /usr that hold programs: links into /usr, or directories of their own on hosts without a merged /usr."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Paths below /etc that are copied, with everything below them, and why. The last component may be a pattern."""

    why: str
    paths: tuple[str, ...]


KEPT: tuple[Kept, ...] = (
    Kept("the dynamic linker finds libraries", ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-*.path")),
    Kept("commands that are links through here (java, vim, awk, cc)", ("alternatives",)),
    Kept(
        "TLS: public certificates and library settings, never private keys",
        (
            "ssl/certs",
            "ssl/cert.pem",
            "ssl/openssl.cnf",
            "ca-certificates",
            "ca-certificates.conf",
            "pki/ca-trust",
            "pki/tls/cert.pem",
            "pki/tls/certs",
            "pki/tls/openssl.cnf",
            "pki/tls/ct_log_list.cnf",
            "crypto-policies",
            "gnutls",
        ),
    ),
    Kept("time of day as on the host", ("localtime", "timezone")),
    Kept(
        "tables that libraries read: protocols, types of files, name lookup",
        ("services", "protocols", "rpc", "ethertypes", "netconfig", "mime.types", "magic", "magic.mime", "gai.conf"),
    ),
    Kept(
        "which distribution this is",
        ("os-release", "debian_version", "lsb-release", "*-release", "*_version", "issue"),
    ),
    Kept(
        "terminals and shells",
        (
            "terminfo",
            "inputrc",
            "bash.bashrc",
            "bashrc",
            "DIR_COLORS*",
            "skel",
            "locale.alias",
            "vim",
            "virc",
            "nanorc",
        ),
    ),
    Kept("names and defaults for new accounts", ("adduser.conf", "deluser.conf", "login.defs", "debconf.conf")),
    Kept(
        "languages that keep a part of their installation here",
        (
            "java",
            "java-*",
            "perl",
            "python2*",
            "python3*",
            "matplotlibrc",
            "R/Makeconf",
            "R/Renviron",
            "R/ldpaths",
            "R/repositories",
            "maven/logging",
            "maven/m2.conf",
            "emacs/site-start.d",
        ),
    ),
    Kept(
        "fonts, pictures, documents",
        ("fonts", "ImageMagick-*", "ghostscript", "groff", "manpath.config", "man_db.conf", "sgml", "texmf", "xml"),
    ),
    Kept("file systems made in a sandbox", ("mke2fs.conf",)),
)

REFUSED_NAMES = (
    "private",
    "*.key",
    "*.keytab",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*password",
    "*secret*",
    "*credential*",
    ".git",
)
"""Names that are left out wherever they stand, whatever their permissions."""

REFUSED_CONTENT = b"PRIVATE KEY-----"
"""Files that hold this are left out: a key that everybody may read is still a key."""

DIRECTORIES: Mapping[str, int] = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/local": 0o755,
    "var/log": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}

LINKS: Mapping[str, str] = {"etc/mtab": "/proc/self/mounts", "var/lock": "/run/lock", "var/run": "/run"}

# Numbers that Debian gives and most others share; programs look these names up, no file of the host decides them.
_USERS = {"daemon": 1, "bin": 2, "sys": 3, "games": 5, "man": 6, "lp": 7, "mail": 8, "www-data": 33, "_apt": 42}
_GROUPS = {
    "root": 0,
    "daemon": 1,
    "bin": 2,
    "sys": 3,
    "adm": 4,
    "tty": 5,
    "disk": 6,
    "lp": 7,
    "mail": 8,
    "man": 12,
    "kmem": 15,
    "dialout": 20,
    "cdrom": 24,
    "sudo": 27,
    "audio": 29,
    "www-data": 33,
    "src": 40,
    "shadow": 42,
    "utmp": 43,
    "video": 44,
    "plugdev": 46,
    "staff": 50,
    "games": 60,
    "users": 100,
    USER: USER_ID,
    "nogroup": 65534,
}

_PROFILE = f"""\
# Settings of login shells.
export PATH="${{PATH:-{PATH}}}"
if [ -n "${{BASH_VERSION-}}" ] && [ "${{PS1-}}" ] && [ -r /etc/bash.bashrc ]; then
    . /etc/bash.bashrc
fi
for script in /etc/profile.d/*.sh; do
    [ -r "$script" ] && . "$script"
done
unset script
"""

_PAM = """\
# Every account but root's is locked and root needs no password: `su <user>` works for root and for nobody else.
auth     sufficient pam_rootok.so
auth     required   pam_deny.so
account  required   pam_permit.so
password required   pam_deny.so
session  required   pam_permit.so
"""


@dataclass(frozen=True, slots=True)
class Text:
    """One made file."""

    content: str
    mode: int = 0o644
    gid: int = 0


def texts(shell: str) -> Mapping[str, Text]:
    """Return the made files of /etc by path; `shell` is that of root and of the default user."""
    nologin = "/usr/sbin/nologin"
    passwd = [f"root:x:0:0:root:/root:{shell}"]
    passwd += [
        f"{name}:x:{uid}:{_GROUPS.get(name, 65534)}:{name}:/nonexistent:{nologin}" for name, uid in _USERS.items()
    ]
    passwd += [
        f"nobody:x:65534:65534:nobody:/nonexistent:{nologin}",
        f"{USER}:x:{USER_ID}:{USER_ID}:{USER}:{HOME}:{shell}",
    ]
    names = [line.split(":", 1)[0] for line in passwd]
    shadow = _GROUPS["shadow"]
    return {
        "etc/passwd": Text(_lines(passwd)),
        "etc/group": Text(_lines([f"{name}:x:{gid}:" for name, gid in _GROUPS.items()])),
        "etc/shadow": Text(_lines([f"{name}:*:19000:0:99999:7:::" for name in names]), 0o640, shadow),
        "etc/gshadow": Text(_lines([f"{name}:*::" for name in _GROUPS]), 0o640, shadow),
        "etc/hosts": Text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
        "etc/hostname": Text("sandbox\n"),
        "etc/resolv.conf": Text(""),
        "etc/host.conf": Text("multi on\n"),
        "etc/nsswitch.conf": Text(
            "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\n"
            "networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n"
        ),
        "etc/fstab": Text(""),
        "etc/profile": Text(_PROFILE),
        "etc/shells": Text(_lines(sorted({"/bin/sh", "/usr/bin/sh", shell}))),
        "etc/pam.d/other": Text(_PAM),
    }


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
