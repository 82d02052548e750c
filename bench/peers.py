"""Other engines on this machine, driven by their own command lines as a caller without a daemon would drive them.

Each engine is a table of argument lists, nothing more; what they have in common (finding a variant that works here,
timing, cleaning up) is in `Peer`. An engine that is missing or does not work is reported with the reason, never left
out in silence and never installed from here: `bench/install-peers` does that.

All run the same root file system, without a network beyond loopback, and with each engine's own defaults otherwise.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Description, MeasurementError, UnavailableError
from bench.launchers import TIMEOUT_SECONDS, Launcher, Outcome
from bench.scratches import Scratch

_INSTALL = "bench/install-peers"
_SLEEP = ("sleep", "3600")
"""What keeps a container alive while commands are run in it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to call an engine; the first that works on this machine is used."""

    arguments: tuple[str, ...] = ()
    hide_unified: bool = False
    note: str = ""


class Engine(ABC):
    """What to type. Methods return argument lists and run nothing, except `prepare`."""

    name: str
    package: str
    variants: tuple[Variant, ...] = (Variant(),)
    can_stay: bool = True
    """Whether a container can live on its own, so that `create` and `exec` mean something."""

    def __init__(self, rootfs: Path, scratch: Scratch) -> None:
        self._rootfs = str(rootfs)
        self._scratch = scratch
        self._state = scratch.memory / self.name

    def binary(self) -> str | None:
        """Return the program, or None when it is not installed."""
        return shutil.which(self.name)

    def prepare(self) -> None:  # noqa: B027 - most engines need nothing
        """Write what the engine needs before its first run. Not timed."""

    @abstractmethod
    def once(self, variant: Variant, ident: str) -> list[str]:
        """Create, run `true`, and remove, in one call."""

    def detached(self, variant: Variant, ident: str) -> list[str]:
        """Create and return while it lives."""
        raise NotImplementedError

    def inside(self, variant: Variant, ident: str) -> list[str]:
        """Run `true` in a living one."""
        raise NotImplementedError

    def removal(self, variant: Variant, ident: str) -> list[str]:
        """End a living one and remove it."""
        raise NotImplementedError


class Runc(Engine):
    """The OCI reference engine, with the configuration its own `spec` command writes."""

    name = "runc"
    package = "Debian: runc"

    def prepare(self) -> None:
        """Make one bundle for `true` and one that stays alive."""
        for bundle, arguments in (("once", ("true",)), ("stay", _SLEEP)):
            directory = self._bundle(bundle)
            directory.mkdir(parents=True)
            subprocess.run([self.name, "spec"], cwd=directory, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
            config = json.loads((directory / "config.json").read_text())
            config["process"]["terminal"] = False
            config["process"]["args"] = list(arguments)
            config["root"]["path"] = self._rootfs
            (directory / "config.json").write_text(json.dumps(config))

    def once(self, variant: Variant, ident: str) -> list[str]:
        """`run` removes the container when its command has ended."""
        return [*self._base(variant), "run", "--bundle", str(self._bundle("once")), ident]

    def detached(self, variant: Variant, ident: str) -> list[str]:
        """`run --detach` returns when the command has been started."""
        return [*self._base(variant), "run", "--detach", "--bundle", str(self._bundle("stay")), ident]

    def inside(self, variant: Variant, ident: str) -> list[str]:
        """Without a terminal, waiting for the end."""
        return [*self._base(variant), "exec", ident, "true"]

    def removal(self, variant: Variant, ident: str) -> list[str]:
        """Kill and delete in one call."""
        return [*self._base(variant), "delete", "--force", ident]

    def _base(self, variant: Variant) -> list[str]:
        return [self.name, *variant.arguments, "--root", str(self._state)]

    def _bundle(self, name: str) -> Path:
        return self._scratch.disk / self.name / name


class Crun(Runc):
    """The OCI engine in C. Some versions refuse hosts with both cgroup hierarchies, hence its variants."""

    name = "crun"
    package = "Debian: crun"
    variants = (
        Variant(),
        Variant(("--cgroup-manager=disabled",), note="without cgroups"),
        Variant((), hide_unified=True, note="cgroup v2 mount of the hybrid hidden from it"),
        Variant(
            ("--cgroup-manager=disabled",), hide_unified=True, note="without cgroups, cgroup v2 mount hidden from it"
        ),
    )


class Bubblewrap(Engine):
    """An unprivileged sandbox around one command: no image, no cgroup, nothing that stays."""

    name = "bwrap"
    package = "Debian: bubblewrap"
    can_stay = False

    def once(self, variant: Variant, ident: str) -> list[str]:
        """All namespaces, the root file system read-only: this version has no overlay."""
        del ident
        mounts = ["--ro-bind", self._rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        return [self.name, *variant.arguments, "--unshare-all", "--die-with-parent", *mounts, "true"]


class Podman(Engine):
    """The engine of Docker's shape without its daemon, on an image imported from the same root file system."""

    name = "podman"
    package = "Debian: podman"
    variants = (
        Variant(note="engine below: the configured one"),
        Variant(hide_unified=True, note="engine below: the configured one, cgroup v2 mount hidden from it"),
        Variant(("--runtime", "runc"), note="engine below: runc"),
    )
    _IMAGE = "localhost/bench:latest"

    def prepare(self) -> None:
        """Import the image into a store of its own."""
        archive = self._scratch.disk / "rootfs.tar"
        subprocess.run(["tar", "-C", self._rootfs, "-cf", archive, "."], check=True, timeout=TIMEOUT_SECONDS)
        command = [*self._base(Variant()), "import", str(archive), self._IMAGE]
        environment = self._scratch.environment
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS, env=environment
        )
        archive.unlink()
        if done.returncode:
            raise UnavailableError(f"cannot import the image: {_last_line(done.stderr)}")

    def once(self, variant: Variant, ident: str) -> list[str]:
        """`run --rm`, attached."""
        return [*self._base(variant), "run", "--rm", "--name", ident, *self._limits(), self._IMAGE, "true"]

    def detached(self, variant: Variant, ident: str) -> list[str]:
        """`run --detach` returns when the command has been started."""
        return [*self._base(variant), "run", "--detach", "--name", ident, *self._limits(), self._IMAGE, *_SLEEP]

    def inside(self, variant: Variant, ident: str) -> list[str]:
        """Without a terminal, waiting for the end."""
        return [*self._base(variant), "exec", ident, "true"]

    def removal(self, variant: Variant, ident: str) -> list[str]:
        """Kill at once and remove."""
        return [*self._base(variant), "rm", "--force", "--time", "0", ident]

    def _base(self, variant: Variant) -> list[str]:
        places = {"--root": self._scratch.disk / "podman", "--runroot": self._state, "--tmpdir": self._state / "tmp"}
        flags = [word for flag, path in places.items() for word in (flag, str(path))]
        drivers = ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return [self.name, *variant.arguments, *flags, *drivers, "--log-level", "error"]

    @staticmethod
    def _limits() -> list[str]:
        # Its defaults raise limits, which a host without CAP_SYS_RESOURCE refuses; these are below any host's.
        return ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]


class Kern(Engine):
    """The sandbox engine of the PyPI package kern-sandbox: one static program, no daemon."""

    name = "kern"
    package = "PyPI: kern-sandbox"

    def binary(self) -> str | None:
        """Look in bench/.peers first, then beside this Python, then on PATH."""
        places = (Path(__file__).parent / ".peers" / "bin" / "kern", Path(sys.executable).parent / "kern")
        return next((str(place) for place in places if os.access(place, os.X_OK)), shutil.which(self.name))

    def once(self, variant: Variant, ident: str) -> list[str]:
        """An overlay over the root file system, removed with the box."""
        return [*self._box(variant, ident), "--", "true"]

    def detached(self, variant: Variant, ident: str) -> list[str]:
        """`--detach` returns when the box is up."""
        return [*self._box(variant, ident), "--detach", "--", *_SLEEP]

    def inside(self, variant: Variant, ident: str) -> list[str]:
        """Without a terminal, waiting for the end."""
        return [self.binary() or self.name, *variant.arguments, "exec", ident, "--", "true"]

    def removal(self, variant: Variant, ident: str) -> list[str]:
        """A stopped box leaves nothing behind."""
        return [self.binary() or self.name, *variant.arguments, "stop", ident]

    def _box(self, variant: Variant, ident: str) -> list[str]:
        return [self.binary() or self.name, *variant.arguments, "box", ident, "--rm", "--rootfs", self._rootfs]


ENGINES: tuple[type[Engine], ...] = (Kern, Bubblewrap, Crun, Runc, Podman)


class Peer:
    """An engine that has been found to work, as a contender."""

    def __init__(self, engine: Engine, scratch: Scratch) -> None:
        found = engine.binary()
        if found is None:
            raise UnavailableError("not installed", hint=f"{_INSTALL} installs it ({engine.package})")
        self._engine = engine
        self._numbers = itertools.count()
        self._living: str | None = None
        try:
            engine.prepare()
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(f"cannot be prepared: {error}") from error
        self._launcher, self._variant = self._first_that_works(scratch)
        self.description = Description(name=engine.name, version=_version(found), note=self._variant.note)

    @property
    def steps(self) -> tuple[str, ...]:
        """A one-shot engine has no living sandbox to create or to run commands in."""
        return ("create", "tti", "exec") if self._engine.can_stay else ("tti",)

    def measure(self, step: str) -> Mapping[str, float]:
        """Run the engine's commands for `step`; a one-shot call removes as well, so it stands for `run` too."""
        if step == "tti":
            ms = self._checked(self._engine.once(self._variant, self._new()))
            return {"tti": ms, "run": ms}
        if step == "exec":
            if self._living is None:
                self._living = self._new()
                self._checked(self._engine.detached(self._variant, self._living), stays=True)
            return {"exec": self._checked(self._engine.inside(self._variant, self._living))}
        ident = self._new()
        created = self._checked(self._engine.detached(self._variant, ident), stays=True)
        return {"create": created, "delete": self._checked(self._engine.removal(self._variant, ident))}

    def close(self) -> None:
        """Remove the living container, then end the launcher and whatever it still holds."""
        if self._living is not None:
            self._launcher.run(self._engine.removal(self._variant, self._living))
        self._launcher.close()

    def _first_that_works(self, scratch: Scratch) -> tuple[Launcher, Variant]:
        refusal = ""
        for variant in self._engine.variants:
            launcher = Launcher(scratch.environment, hide_unified=variant.hide_unified)
            try:
                outcome = launcher.run(self._engine.once(variant, self._new()))
            except (OSError, RuntimeError) as error:
                outcome = Outcome(ms=0.0, status=None, stderr=str(error))
            if outcome.status == 0:
                return launcher, variant
            refusal = refusal or _last_line(outcome.stderr) or f"exit status {outcome.status}"
            launcher.close()
        raise UnavailableError(f"does not work here: {refusal}")

    def _new(self) -> str:
        return f"bench-{os.getpid()}-{next(self._numbers)}"

    def _checked(self, argv: Sequence[str], *, stays: bool = False) -> float:
        outcome = self._launcher.run(argv, stays=stays)
        if outcome.status != 0:
            status = "no end in time" if outcome.status is None else f"exit status {outcome.status}"
            raise MeasurementError(f"{self._engine.name}: {status}: {_last_line(outcome.stderr)}")
        return outcome.ms


def _version(binary: str) -> str:
    try:
        command = [binary, "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    words = done.stdout.split("\n", maxsplit=1)[0].split()
    return next((word for word in words if word[0].isdigit()), "")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
