"""The reference part of the nodes' help pages, generated from their schemas.

``python -m tests.nodes.help_pages`` updates the committed pages; like all tests here, it needs
ComfyUI. The rest of a page is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from .pack import NODES, ROOT, schema_inputs

from comfy_api.latest import io  # isort: skip

COMMAND = "python -m tests.nodes.help_pages"
START, END = f"<!-- inputs: written by `{COMMAND}` -->", "<!-- end of inputs -->"
PART = re.compile(rf"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
ADVANCED = (
    "Rarely needed (folded away under *more settings*; an input with a changed value stays "
    "visible):"
)


def page_of(node_id: str) -> Path:
    return ROOT / "web" / "docs" / f"{node_id}.md"


def reference(node_id: str) -> str:
    """The list of inputs: linked ones first, then the widgets, the advanced ones last."""
    inputs = list(schema_inputs(node_id).values())
    inputs.sort(key=lambda inp: isinstance(inp, io.WidgetInput))  # stable
    common = [_line(inp) for inp in inputs if not _is_advanced(inp)]
    advanced = [_line(inp) for inp in inputs if _is_advanced(inp)]
    if not advanced:
        return "\n".join(common)
    return "\n".join([*common, "", ADVANCED, "", *advanced])


def _is_advanced(inp: io.Input) -> bool:
    return bool(inp.as_dict().get("advanced"))


def _line(inp: io.Input) -> str:
    limits = ""
    if isinstance(inp, (io.Int.Input, io.Float.Input)):
        limits = f" From {inp.min:.15g} to {inp.max:.15g}."
    return f"- **{inp.id}**: {inp.tooltip}{limits}"


def up_to_date(node_id: str, page: str) -> str:
    """The page with its reference part generated from the current schema."""
    part = f"{START}\n\n{reference(node_id)}\n\n{END}"
    return PART.sub(lambda _: part, page)


def main() -> None:
    for node_id in NODES:
        file = page_of(node_id)
        page = file.read_text(encoding="utf-8")
        file.write_text(up_to_date(node_id, page), encoding="utf-8")


if __name__ == "__main__":
    main()
