"""Gives the wheel its platform: with the C core it runs on Linux of one machine type, without it anywhere.

The C core is static and makes system calls alone, so it asks nothing of the C library of its host.
"""

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BINARY = "src/traforo/worker/bin/traforo-init"


class WheelTag(BuildHookInterface[Any]):
    """Sets the wheel tag from what is to be packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the tag; `version` is "editable" for an install in place."""
        if version == "editable" or not (Path(self.root) / BINARY).exists():
            return
        machine = platform.machine()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}.musllinux_1_1_{machine}"
