"""Sandboxes that start cold as quickly as others start warm.

The public face of the package: the clients `Sandbox` and `AsyncSandbox`, and the version. A client is loaded when
it is asked for, so that `import traforo` costs the command line and the servers next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traforo.sdk import AsyncSandbox as AsyncSandbox
    from traforo.sdk import Sandbox as Sandbox

__all__ = ["AsyncSandbox", "Sandbox", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"AsyncSandbox", "Sandbox"}:
        return getattr(importlib.import_module("traforo.sdk"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
