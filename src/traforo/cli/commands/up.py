"""`traforo up`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from traforo.cli import children, durations, printers, probes
from traforo.settings import addresses, sources
from traforo.settings import control as control_settings
from traforo.settings import worker as worker_settings

START_SECONDS = 60.0
STOP_SECONDS = 30.0
AGAIN_TIMES = 3
"""How often within `AGAIN_SECONDS` a process may die and be started again."""
AGAIN_SECONDS = 60.0
_POLL_SECONDS = 0.02
_TRY = """try:
  curl -sL {header}{control}/sandboxes -d '{{"image": "host"}}'
  curl -s {header}{worker}/sandboxes/$ID/exec -d '{{"command": "echo hello", "wait": true}}'
  curl -s {header}-X DELETE {worker}/sandboxes/$ID
or:
  {url}{program} run -- python3 -c 'print("hello")'"""

Fields = Annotated[dict[str, str] | None, Parameter(negative="")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to run."""

    control_url: str
    worker_url: str
    hostname: str
    logs: Path
    control: Sequence[str]
    """Arguments of `traforo control`."""
    worker: Sequence[str]
    prod: bool = False
    """Whether a token is asked for."""
    control_log: Path | None = None
    """Where the control plane logs, if not among `logs`."""
    worker_log: Path | None = None


def up(
    *,
    control_port: int | None = None,
    worker_port: int | None = None,
    free_ports: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    state_dir: Path | None = None,
    control_file: Path | None = None,
    worker_file: Path | None = None,
    control: Fields = None,
    worker: Fields = None,
    ready_file: Path | None = None,
    start_timeout: durations.Option = None,
) -> int:
    """Run a control plane and a worker on this machine.

    Both listen on 127.0.0.1 and need no configuration; all settings of either can be given as flags here, in files or
    as variables. One that dies is started again, and sandboxes go on meanwhile; Ctrl-C stops both, and with them every
    sandbox. As root or as anyone else: the worker says what it lacks, and so does `traforo doctor`.

    Args:
        control_port: Port of the control plane on 127.0.0.1 [default: 8080, or what its settings say].
        worker_port: Port of the worker on 127.0.0.1 [default: 8081, or what its settings say].
        free_ports: Take ports that nobody uses.
        state_dir: Directory for all that is kept, logs included [default: that of each process].
        control_file: YAML file of settings for the control plane.
        worker_file: YAML file of settings for the worker.
        control: Any flag of `traforo control`, such as `--control.log-level debug`.
        worker: Any flag of `traforo worker`, such as `--worker.max-live-sandboxes 64`.
        ready_file: File to write JSON to when both are ready: `{control_url, worker_url, pids}`.
        start_timeout: Time that the start may take, such as `90` or `2m` [default: 1m].
    """
    ports = probes.free_ports("127.0.0.1", 2) if free_ports else [control_port, worker_port]
    plan = _plan((ports[0], ports[1]), state_dir, (control_file, worker_file), (control or {}, worker or {}))
    stopping = children.StopSignals()
    running: list[children.Child] = []
    problem = ""
    with stopping.installed():
        try:
            seconds = start_timeout or START_SECONDS
            if _start(plan, running, stopping, time.monotonic() + seconds):
                _announce(plan)
                _write_ready(plan, running, ready_file)
                _keep(plan, running, stopping, seconds, ready_file)
            failed = None if stopping.count else next(c for c in running if c.process.poll() is not None)
            problem = "" if failed is None else failed.ended()
        except TimeoutError as error:
            failed, problem = running[-1], str(error)
        finally:
            printers.note("stopping")
            clean = children.stop(running, STOP_SECONDS, stopping)
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
    if failed is not None:
        _tell(failed, problem)
        return 1
    for child in [] if clean else running:
        if child.process.returncode != 0:
            _tell(child, f"while stopping, {child.ended()}")
    return 0 if clean else 1


def _plan(
    ports: tuple[int | None, int | None],
    state_dir: Path | None,
    files: tuple[Path | None, Path | None],
    given: tuple[dict[str, str], dict[str, str]],
) -> Plan:
    """Decide what to run. A flag is added only where nobody else has said something.

    Raises `InvalidRequest` for settings that do not fit, OSError for an address that is taken.
    """
    home = None if state_dir is None else state_dir.absolute()
    flags = [
        {
            **({} if port is None else {"listen": f"127.0.0.1:{port}"}),
            **({} if home is None else {"state-dir": str(home / name)}),
            **({} if home is None or name == "control" else {"run-dir": str(home / "run")}),
            **own,
        }
        for name, port, own in zip(("control", "worker"), ports, given, strict=True)
    ]
    control = _loaded(control_settings.ControlSettings, flags[0], files[0])
    worker = _loaded(worker_settings.WorkerSettings, flags[1], files[1])
    for listen in (control.listen, worker.listen):
        # Whoever listens there already would be taken for ours, and our worker would register with it.
        address = addresses.parse(listen)
        probes.require_free(address.host, address.port)
    logs = (worker.state_dir.parent if home is None else home) / "logs"
    if not worker.control_url:
        flags[1]["control-url"] = control.base_url
    for name, settings, known in (("control", control.log, flags[0]), ("worker", worker.log, flags[1])):
        if settings.file is None:
            known["log-file"] = str(logs / f"{name}.log")
    return Plan(
        control_url=control.base_url,
        worker_url=worker.base_url,
        hostname=worker.hostname,
        logs=logs,
        control=_arguments(flags[0], files[0]),
        worker=_arguments(flags[1], files[1]),
        prod=control.auth.mode == "prod",
        control_log=control.log.file,
        worker_log=worker.log.file,
    )


def _loaded(kind: type[sources.Settings], flags: dict[str, str], file: Path | None) -> sources.Settings:
    """Load settings as the process itself will, so that a mistake in them is told before anything starts."""
    names = {leaf.key.replace(".", "-"): leaf.name for leaf in sources.leaves(kind)}
    return sources.load(kind, {names.get(flag, flag): value for flag, value in flags.items()}, file, os.environ)


def _arguments(flags: dict[str, str], file: Path | None) -> list[str]:
    arguments = [] if file is None else [f"--file={file.absolute()}"]
    return [*arguments, *(f"--{name}={value}" for name, value in flags.items())]


def _start(plan: Plan, running: list[children.Child], stopping: children.StopSignals, deadline: float) -> bool:
    """Start both, one after the other so that the worker finds where to register, and wait until they know each other.

    Returns False when a stop was asked for or one of them ended. Raises TimeoutError.
    """

    def reached(done: Callable[[], bool], problem: str) -> bool:
        while not done():
            if stopping.count or any(child.process.poll() is not None for child in running):
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"cannot start: {problem} in time")
            stopping.wait(running, _POLL_SECONDS)
        return True

    running.append(_child(plan, "control"))
    if not reached(lambda: probes.healthy(plan.control_url), "the control plane does not answer"):
        return False
    running.append(_child(plan, "worker"))
    return reached(lambda: probes.healthy(plan.worker_url), "the worker does not answer") and reached(
        lambda: probes.registered(plan.control_url, plan.hostname), "the worker is not registered"
    )


def _keep(
    plan: Plan,
    running: list[children.Child],
    stopping: children.StopSignals,
    seconds: float,
    ready_file: Path | None,
) -> None:
    """Start again what dies, until a stop is asked for or something dies too often."""
    deaths: list[float] = []
    while not stopping.count:
        stopping.wait(running, None)
        ended = next((number for number, child in enumerate(running) if child.process.poll() is not None), None)
        if ended is None or stopping.count:
            continue
        deaths = [at for at in deaths if time.monotonic() - at < AGAIN_SECONDS] + [time.monotonic()]
        if len(deaths) > AGAIN_TIMES:
            return
        child = running[ended]
        _tell(child, child.ended())
        printers.note(f"note: the {child.name} process is started again; sandboxes and their commands go on")
        running[ended] = _child(plan, child.name)
        _await_answer(plan, running[ended], stopping, time.monotonic() + seconds)
        _write_ready(plan, running, ready_file)


def _await_answer(plan: Plan, child: children.Child, stopping: children.StopSignals, deadline: float) -> None:
    """Return when a process answers or has ended, or a stop is asked for; say so once when the deadline passes.

    One that is slow to come back is waited for, since to give up would end every sandbox, and they go on meanwhile.
    """
    url = plan.control_url if child.name == "control" else plan.worker_url
    late = False
    while not probes.healthy(url) and not stopping.count and child.process.poll() is None:
        if not late and time.monotonic() > deadline:
            printers.note(f"note: the {child.name} process does not answer yet; sandboxes go on meanwhile")
            late = True
        stopping.wait([child], _POLL_SECONDS)


def _child(plan: Plan, name: str) -> children.Child:
    if name == "control":
        return children.start(name, plan.control, plan.logs, plan.control_log)
    return children.start(name, plan.worker, plan.logs, plan.worker_log)


def _announce(plan: Plan) -> None:
    print(f"control plane  {plan.control_url}")
    print(f"worker         {plan.worker_url}   (docs: {plan.worker_url}/docs)")
    print(f"logs           {plan.logs}")
    url = "" if plan.control_url == "http://127.0.0.1:8080" else f"TRAFORO_URL={plan.control_url} "
    header = ""
    if plan.prod:
        header = '-H "Authorization: Bearer $TRAFORO_TOKEN" '
        print("mode           prod: each create takes a new token: export TRAFORO_TOKEN=$(traforo token NAME)")
    program = "traforo" if shutil.which("traforo") else sys.argv[0]
    print(_TRY.format(control=plan.control_url, worker=plan.worker_url, url=url, header=header, program=program))
    sys.stdout.flush()


def _write_ready(plan: Plan, running: Sequence[children.Child], ready_file: Path | None) -> None:
    if ready_file is not None:
        facts = {
            "control_url": plan.control_url,
            "worker_url": plan.worker_url,
            "pids": {"up": os.getpid(), **{child.name: child.process.pid for child in running}},
        }
        _write_whole(ready_file, json.dumps(facts) + "\n")


def _write_whole(path: Path, text: str) -> None:
    """Write a file that nobody can read half of."""
    with tempfile.NamedTemporaryFile("w", dir=path.absolute().parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)


def _tell(child: children.Child, problem: str) -> None:
    """Say what became of a process in a few lines, and where there is more."""
    said, hint = child.said()
    printers.error(f"{problem}: {said}" if said else problem, hint)
    if not said and (logged := child.last_error()):
        printers.note(f"note: the last error in its log, {logged}")
    whole = child.log if child.log.is_file() else child.words
    printers.note(f"note: all that it wrote is in {whole}")
