"""``python -m tests.fuzz.table``: writes the figures of the long tier to ``docs/faults.md``.

``FIGURES`` is the state of its run, with and without ``--nodes``. A copy of it continues the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "figures.json"
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
HEADING = "| parser | inputs | used | refused | crashes | slowest, s | memory, MB |"

Targets = Mapping[str, Mapping[str, Any]]  # the figures of each target, see ``runner.Figures``


def table(targets: Targets) -> str:
    """A row for each parser, and one for all."""
    sums = ("inputs", "accepted", "refused", "crashed")
    total: dict[str, Any] = {n: sum(figures[n] for figures in targets.values()) for n in sums}
    for name in ("slowest", "megabytes"):
        total[name] = max(figures[name] for figures in targets.values())
    rows = [_row(name.replace("_", " "), figures) for name, figures in targets.items()]
    return "\n".join([HEADING, "| --- |" + " ---: |" * 6, *rows, _row("**all**", total)]) + "\n"


def _row(name: str, figures: Mapping[str, Any]) -> str:
    counts = [f"{figures[key]:,}" for key in ("inputs", "accepted", "refused", "crashed")]
    costs = [f"{figures['slowest']:.3f}", f"{figures['megabytes']:.0f}"]
    return f"| {' | '.join([name, *counts, *costs])} |"


def main() -> None:
    targets = json.loads(FIGURES.read_text(encoding="utf-8"))["targets"]
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(HEADING)] + table(targets), encoding="utf-8")


if __name__ == "__main__":
    main()
