"""Writes the generated parts of docs/concepts/lifecycle.md from the table in `traforo.worker.sandboxes.lifecycles`.

Run it from the repository's root: `.venv/bin/python -m tools.lifecycle_page`.
"""

import re
from pathlib import Path

from traforo.worker.sandboxes import lifecycles

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "lifecycle.md"


def render(page: str) -> str:
    """Return the page with its generated parts made anew."""
    parts = {"diagram": f"```mermaid\n{lifecycles.mermaid()}```\n", "table": lifecycles.markdown()}
    for name, text in parts.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page = re.sub(pattern, lambda _, made=begin + text + end: made, page, flags=re.DOTALL)  # type: ignore[misc]  # a default binds the loop's value
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
