"""Tables and a plot of what ``benchmarks.quality`` has measured so far, as ``benchmarks/README.md``
and the project's own README show them: ``python -m benchmarks.quality_report``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unlearn_core.cli import say

from .methods import ABLATIONS, METHODS, OURS
from .quality import (
    OBJECTS,
    SEEDS,
    STYLES,
    TIERS,
    TUNED_ON,
    harmonic_mean,
    read,
    scored_tasks,
    tuned,
    tuning_tasks,
)

HERE = Path(__file__).parent
README, FRONT, PLOT = (
    HERE / "README.md",
    HERE.parent / "README.md",
    HERE / "results" / "quality.png",
)
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
FRONT_BEGIN, FRONT_END = "<!-- results -->", "<!-- end of results -->"
CONCEPTS = TIERS["small"]
Record = dict[str, Any]


def drift(side: str) -> Callable[[Record], float]:
    """How much the alignment of retained pictures has changed."""
    return lambda r: r["after"]["alignment"][side] - r["before"]["alignment"][side]


COLUMNS: dict[str, Callable[[Record], float | None]] = {
    "UA": lambda r: r["after"]["unlearning_accuracy"],
    "IRA": lambda r: r["after"]["in_domain_retain"],
    "CRA": lambda r: r["after"]["cross_domain_retain"],
    "CRA, forgotten prompts": lambda r: r["after"]["cross_domain_forget"],
    "harmonic mean": lambda r: harmonic_mean(r["after"]),
    "alignment, train": drift("retain_train"),
    "alignment, test": drift("retain_test"),
    "CMMD": lambda r: r["retain_distance"],
    "raised a loss": lambda r: r["rise_share"],
    "CPU seconds": lambda r: r["cpu_seconds"],
    "GiB": lambda r: r["peak_bytes"] / 2**30,
}
SHARES = ("UA", "IRA", "CRA")
SIDES = ("before", "after")
SIGNED = {"alignment, train", "alignment, test"}
ROUGH = {"CPU seconds": 0, "GiB": 1}


def records(method: str, concepts: Sequence[str]) -> list[Record]:
    """What is there of a method's scored runs."""
    files = [task.record for task in scored_tasks(method, tuple(concepts))]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def cell(name: str, values: list[float]) -> str:
    """Mean and half the range; a dash where nothing is known."""
    if not values:
        return "–"
    digits, sign = ROUGH.get(name, 3), "+" if name in SIGNED else ""
    spread = (max(values) - min(values)) / 2
    if len(values) == 1:
        return f"{values[0]:{sign}.{digits}f}"
    return f"{statistics.mean(values):{sign}.{digits}f} ± {spread:.{digits}f}"


def table(concepts: Sequence[str]) -> str:
    lines = ["| method | runs | " + " | ".join(COLUMNS) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(COLUMNS))
    for method in METHODS:
        found = records(method, concepts)
        if not found:
            continue
        cells = []
        for name, figure in COLUMNS.items():
            values = [value for value in map(figure, found) if value is not None]
            cells.append(cell(name, values))
        expected = len(concepts) * len(SEEDS)
        lines.append(f"| {method} | {len(found)} of {expected} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def full_tier() -> tuple[str, ...]:
    """Its table, once a run beyond the small tier is there."""
    more = [concept for concept in TIERS["full"] if concept not in CONCEPTS]
    if not any(records(method, more) for method in METHODS):
        return ()
    return ("### The full tier: five styles, ten objects", table(TIERS["full"]))


def search_table() -> str:
    """Every run of the search; in bold what it has chosen, where it is complete."""
    lines = [
        "| method | learning rate | retain weight | UA | IRA | CRA | harmonic mean "
        "| alignment, train | alignment, test |",
        "| --- |" + " --- |" * 8,
    ]
    for method in METHODS:
        if method in ABLATIONS:
            continue
        for task in tuning_tasks(method):
            record, settings = read(task), task.settings
            if record is None:
                continue
            figures = [
                cell(name, [value])
                for name in (*SHARES, "harmonic mean", "alignment, train", "alignment, test")
                if (value := COLUMNS[name](record)) is not None
            ]
            name = f"**{method}**" if settings == tuned(method) else method
            cells = (f"{settings.learning_rate:g}", f"{settings.retain_weight:g}", *figures)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_table() -> str:
    found = {
        method: [r["probes"] for r in records(method, CONCEPTS) if r["probes"]]
        for method in METHODS
    }
    names = list(next((probes[0] for probes in found.values() if probes), {}))
    if not names:
        return "No probe has run yet."
    lines = ["| method | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    everybody = [probes for of_method in found.values() for probes in of_method]
    for method, side, chosen in [
        ("*before unlearning*", "before", everybody),
        *((method, "after", probes) for method, probes in found.items() if probes),
    ]:
        shares = [statistics.mean(probes[name][side] for probes in chosen) for name in names]
        lines.append(f"| {method} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return "\n".join(lines)


def plot() -> None:
    """Forgetting against keeping, a point a run, a large one a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    markers = "oXsDP^v<>*phd8"
    for method, marker in zip(METHODS, markers, strict=True):
        points = [
            (r["after"]["unlearning_accuracy"], drift("retain_test")(r))
            for r in records(method, CONCEPTS)
        ]
        if not points:
            continue
        (small,) = axes.plot(*zip(*points, strict=True), marker, ms=3, alpha=0.4)
        mean = [statistics.mean(values) for values in zip(*points, strict=True)]
        axes.plot(*mean, marker, ms=9, color=small.get_color(), label=method)
    axes.axhline(0, color="#1b1b1f", linewidth=0.8)
    axes.set_xlabel("unlearning accuracy (to the right: forgotten)")
    axes.set_ylabel("change of alignment, held-out retain prompts (up: kept)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    FigureCanvasAgg(figure).print_png(PLOT)


def bar() -> str:
    """What was hoped for, against what came of it."""
    of_each = {method: records(method, CONCEPTS) for method in METHODS}
    of_each = {method: found for method, found in of_each.items() if found}
    if OURS not in of_each:
        return "Not scored yet."

    def mean(name: str, method: str) -> float:
        return statistics.mean(COLUMNS[name](r) or 0.0 for r in of_each[method])

    baselines = [method for method in of_each if not method.startswith(OURS)]
    rows: list[tuple[str, str]] = []
    for name in ("harmonic mean", "alignment, train", "alignment, test"):
        best = sorted(baselines, key=lambda method: -mean(name, method))[:3]
        others = ", ".join(f"{method} {cell(name, [mean(name, method)])}" for method in best)
        mine = cell(name, [mean(name, OURS)])
        rows.append((f"{name}: above every baseline", f"{mine}; the best of them: {others}"))
    drifts = [
        drift(side)(record) for record in of_each[OURS] for side in ("retain_train", "retain_test")
    ]
    error = statistics.stdev(drifts) / len(drifts) ** 0.5 if len(drifts) > 1 else 0.0
    rows.append(
        (
            "alignment within 0.003 of the base model's at UA ≥ 0.98",
            f"{statistics.mean(drifts):+.4f} ± {error:.4f} (standard error, train and test) "
            f"at UA {mean('UA', OURS):.3f}",
        )
    )
    shares = [
        f"{method} {1 - mean('raised a loss', method):.3f}"
        for method in (OURS, ABLATIONS[0], "RG (paper)")
        if method in of_each
    ]
    rows.append(("no loss raised, to first order, on 99 % of steps", ", ".join(shares)))
    lines = ["| hoped for | measured |", "| --- | --- |"]
    return "\n".join(lines + [f"| {asked} | {found} |" for asked, found in rows])


def front_tables() -> tuple[str, str]:
    """For the README: each concept before and after, and each method over all concepts."""
    of_ours = ["| forget | runs | UA | IRA | CRA | alignment |", "| --- |" + " --- |" * 5]
    for concept in CONCEPTS:
        found = records(OURS, [concept])
        if not found:
            continue
        cells = [
            f"{statistics.mean(before):.3f} → {cell(name, after)}"
            for name in SHARES
            for before, after in [
                [[COLUMNS[name]({"after": r[side]}) or 0.0 for r in found] for side in SIDES]
            ]
        ]
        drifts = cell("alignment, test", [drift("retain_test")(r) for r in found])
        of_ours.append(f"| {concept} | {len(found)} | " + " | ".join([*cells, drifts]) + " |")
    names = ("UA", "IRA", "CRA", "harmonic mean", "alignment, train", "alignment, test")
    of_all = ["| method | runs | " + " | ".join(names) + " |", "| --- |" + " --- |" * 7]
    for method in METHODS:
        found = records(method, CONCEPTS)
        if found:
            means = [statistics.mean(COLUMNS[name](r) or 0.0 for r in found) for name in names]
            cells = [cell(name, [mean]) for name, mean in zip(names, means, strict=True)]
            of_all.append(f"| {method} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(of_ours), "\n".join(of_all)


def put(file: Path, begin: str, end: str, text: str) -> None:
    """In place of what stands between the two marks."""
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    text = "\n\n".join(
        (
            "### Styles: ink (far from the others), twemoji (beside noto)",
            table(STYLES),
            "### Objects: guitar (far from the others), cat (beside other animals)",
            table(OBJECTS),
            *full_tier(),
            "### What was hoped for",
            bar(),
            "### What comes back",
            probe_table(),
            f"### The search on *{TUNED_ON}*, and in bold what it chose",
            search_table(),
        )
    )
    put(README, BEGIN, END, text)
    put(FRONT, FRONT_BEGIN, FRONT_END, "\n\n".join(front_tables()))
    if any(records(method, CONCEPTS) for method in METHODS):
        plot()
    say(text)


if __name__ == "__main__":
    main()
