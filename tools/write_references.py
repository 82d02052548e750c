#!/usr/bin/env python3
"""Write the references of settings and metrics from the code that defines them.

tools/write_references.py            write docs/reference/{settings,metrics}.md
tools/write_references.py --check    write nothing; say what would change, with status 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import prometheus_client
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from traforo.api import claims
from traforo.settings import control, groups, quantities, sources, worker
from traforo.telemetry import labels, metrics

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"

SETTINGS_HEAD = """\
# Settings

<!-- Written by tools/write_references.py from traforo.settings; change the code, not this page. -->

Each process reads its settings once, when it starts. For each setting the first source that has it wins:

1. the flag of the command,
2. the environment variable (an empty one counts as not set),
3. the YAML file,
4. the default.

A key that does not exist, a value that does not fit, a key twice, or a second document in the file is an error that
names the key; nothing is ignored silently. Keys of groups are nested in the file: `log.level` is `level` below `log`.

Durations are seconds, or text such as `30m`, `1h30m`, `120s`, `500ms`. Sizes are bytes, or text such as `256MiB`.
Lists in a variable have commas between items, or are JSON. Addresses are `host:port`, `[v6]:port`, or `:port` for every
interface.
"""

FILE_EXAMPLE = """\
## A worker's file

```yaml
listen: 0.0.0.0:8081
hostname: worker-1
worker-id: worker_1
control-url: http://control:8080
default-ttl: 30m
log:
  level: info
  file: /var/log/traforo/worker.log
  rotate-size: 64MiB
  max-rotations: 5
pre-pull:
  images: [host]
```
"""

METRICS_HEAD = """\
# Metrics

<!-- Written by tools/write_references.py from traforo.telemetry.metrics; change the code, not this page. -->

`GET /metrics` of each process, in the text format of Prometheus, without a credential. Memory, processor time and open
files of the process itself are there as `process_*`. Counters never fall, gauges may, and histograms give `_bucket`,
`_count` and `_sum`.
"""

METRICS_TAIL = """\
## Labels

A label is one of {allowed}, and nothing else can be declared.
What has a value for each sandbox, exec, client or image is never a label; it is in the log, where `request_id` leads
from one line to the next.

`reason` of `*_auth_failures_total` is one of {reasons}.
`cpu` is the smallest of 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32 and 64 processors that holds what was asked for, or `more`.

## Buckets

Durations, in seconds: {buckets}.
"""


def settings_page() -> str:
    """Return the reference of settings."""
    parts = [SETTINGS_HEAD]
    for title, kind in (("Worker", worker.WorkerSettings), ("Control plane", control.ControlSettings)):
        parts += [f"## {title}\n", _table(("key", "variable", "default", "meaning"), _settings(kind))]
    aliases = [f"`{old}` for `{new}`" for old, new in sources.FILE_ALIASES.items()]
    aliases += [f"`{old}`, which is ignored with a warning ({why})" for old, why in sources.FILE_IGNORED.items()]
    parts += [FILE_EXAMPLE, f"Files of traforato's worker are read as they are: {'; '.join(aliases)}.\n"]
    return "\n".join(parts)


def metrics_page() -> str:
    """Return the reference of metrics."""
    parts = [METRICS_HEAD]
    for title, kind in (
        ("Worker", metrics.WorkerMetrics),
        ("Control plane", metrics.ControlMetrics),
        ("Drivers that reach guests over a network", metrics.GuestMetrics),
    ):
        declared = kind(prometheus_client.CollectorRegistry()).declared()
        rows = [
            (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in declared
        ]
        parts += [f"## {title}\n", _table(("name", "kind", "labels", "meaning"), rows)]
    reasons = ", ".join(f"`{reason}`" for reason in (*claims.REASONS, "forbidden"))
    allowed = ", ".join(f"`{label}`" for label in sorted(labels.ALLOWED))
    buckets = ", ".join(f"{bound:g}" for bound in metrics.BUCKETS)
    return "\n".join([*parts, METRICS_TAIL.format(allowed=allowed, reasons=reasons, buckets=buckets)])


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    return {REFERENCE / "settings.md": settings_page(), REFERENCE / "metrics.md": metrics_page()}


def _settings(kind: type[groups.ProcessSettings]) -> Iterable[tuple[str, ...]]:
    for leaf in sorted(sources.leaves(kind), key=lambda leaf: "." in leaf.key):
        meaning = " ".join((leaf.field.description or "").split()).replace("|", "\\|")
        yield f"`{leaf.key}`", f"`{leaf.variable}`", _default(leaf), meaning


def _default(leaf: sources.Leaf) -> str:
    value = leaf.field.default
    found = leaf.field.metadata
    if value is PydanticUndefined or value is None or value in ("", ()) or isinstance(value, SecretStr):
        return "see meaning" if leaf.field.default_factory else "none"
    if any(getattr(one, "func", None) is quantities.seconds for one in found):
        return f"`{_largest(value, ((86400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')))}`"
    if any(getattr(one, "func", None) is quantities.size for one in found):
        return f"`{_largest(value, ((2**30, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB'), (1, 'B')))}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _largest(value: float, units: tuple[tuple[int, str], ...]) -> str:
    size, unit = next((size, unit) for size, unit in units if value % size == 0)
    return f"{value / size:g}{unit}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    changed = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in changed:
        print(path.relative_to(REFERENCE.parents[1]))
        if "--check" not in arguments:
            path.write_text(pages()[path])
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
