"""Tables and a plot of the records of ``benchmarks.digits``: ``python -m benchmarks.digits_report``
writes them into ``benchmarks/README.md`` and ``benchmarks/APPENDIX.md``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chance import gain, spread
from benchmarks.comparisons import verdict_with_p
from benchmarks.digits import (
    BALANCED,
    METHODS,
    SETTLED_ON,
    TUNED_ON,
    TWO,
    measure,
    scored,
    tuned,
    tuning,
)
from benchmarks.digits_comparisons import (
    FIGURES,
    OF_PAPER,
    PAIRS,
    TESTED,
    differences,
    scored_runs,
)
from benchmarks.figures import refresh
from benchmarks.pages import APPENDIX, HERE, README, put
from benchmarks.records import format_spread
from demo.digits import DIGITS
from demo.jobs import DIGITS_MODEL
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.job.console import CACHE, say
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model

PLOT = HERE / "results" / "digits.png"
PLOTTED = "UA, RA and FID of each method: a small mark is one run, a large one the mean"
BEGIN, END = "<!-- digits -->", "<!-- end of digits -->"
KEEPS_ALL = "fine-tune"  # not ranked by retention, as it does not forget


def table(
    retain: str,
    digits: Sequence[str] = DIGITS,
    before: Mapping[str, dict[str, float]] | None = None,
) -> str:
    """A row per method. ``before``: each digit's figures of the original model, which no record
    contains."""
    lines = ["| method | runs | UA | RA | FID | raised a loss |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    if before is not None:
        means = {name: statistics.mean(before[digit][name] for digit in digits) for name in FIGURES}
        figures = " | ".join(f"{means[name]:.{places}f}" for name, places in FIGURES.items())
        lines.append(f"| *before* | {len(digits)} | {figures} | |")
    for method in METHODS:
        tasks = [t for t in scored(method) if t.retain == retain and t.digit in digits]
        by_digit: dict[str, list[dict[str, Any]]] = {}
        for task in tasks:
            if (record := task.read()) is not None:
                by_digit.setdefault(task.digit, []).append(record)
        if not by_digit:
            continue
        cells = [
            format_spread(spread([[r[name] for r in rs] for rs in by_digit.values()]), places)
            for name, places in (*FIGURES.items(), ("rise_share", 2))
        ]
        runs = f"{sum(map(len, by_digit.values()))} of {len(tasks)}"
        lines.append(f"| {method} | {runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def order_of_paper() -> str:
    """The paper's methods, best first, here and in the paper; without the one that does not
    forget."""
    records = {m: runs for m, runs in scored_runs().items() if m in OF_PAPER}
    runs = {m: list(of_method.values()) for m, of_method in records.items()}
    missing = [m for m in OF_PAPER if {digit for digit, _ in records[m]} < set(DIGITS)]
    if missing:
        return f"The order is known when all digits are scored with {', '.join(missing)}."
    lines = []
    for place, name, sign in ((1, "ra", -1), (2, "fid", 1)):  # a high RA, a low FID
        here = {m: sign * statistics.mean(r[name] for r in runs[m]) for m in OF_PAPER}
        theirs = {m: sign * figures[place] for m, figures in OF_PAPER.items()}
        ranks = [
            ", ".join(m for m in sorted(figures, key=figures.__getitem__) if m != KEEPS_ALL)
            for figures in (here, theirs)
        ]
        same = "the same order" if ranks[0] == ranks[1] else "**another order**"
        comparison = f"here {ranks[0]}; in the paper {ranks[1]}: {same}"
        lines.append(f"{name.upper()}, best first: {comparison}.")
    return " ".join(lines)


def against_paper() -> str:
    """Gains of RG, RGD and ours over each method, per digit, with their significance, next to the
    gains of RG and RGD in the paper."""
    lines = ["| | UA | RA | | FID | | UA, paper | RA, paper | FID, paper |"]
    lines.append("| --- |" + " --- |" * 8)
    tests = differences()
    for winner, method in PAIRS:
        if ((winner, method), "ua") not in tests:
            continue
        cells = []
        for name, places in FIGURES.items():
            test = tests[(winner, method), name]
            cells.append(gain(test.gains, places))
            if name in TESTED:
                cells.append(verdict_with_p(test))
        best = OF_PAPER.get(winner, OF_PAPER["RGD"])
        for ours, theirs, places in zip(best, OF_PAPER[method], FIGURES.values(), strict=True):
            cells.append(f"{ours - theirs:+.{places}f}")
        lines.append(f"| {winner}, less {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def search_table() -> str:
    lines = ["| method | learning rate | retain weight | UA | RA | FID |", "| --- |" + " --- |" * 5]
    for method in METHODS:
        best = tuned(method)
        for task in tuning(method):
            record = task.read()
            if record is None:
                continue
            label = f"**{method}**" if task.settings == best else method
            figures = " | ".join(f"{record[name]:.{places}f}" for name, places in FIGURES.items())
            rate, weight = task.settings.learning_rate, task.settings.retain_weight
            lines.append(f"| {label} | {rate:g} | {weight:g} | {figures} |")
    return "\n".join(lines)


def plot(before: Mapping[str, dict[str, float]]) -> None:
    """Plot each figure over the ten digits: small marks for runs, a large one for the mean, and a
    line for the original model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110, layout="constrained")
    runs = scored_runs()
    methods = list(METHODS)[::-1]
    titles = ("UA (right: forgotten)", "RA (right: kept)", "FID (left: kept)")
    panels = zip(figure.subplots(1, 3, sharey=True), FIGURES, titles, strict=True)
    for axes, name, title in panels:
        for place, method in enumerate(methods):
            values = [record[name] for record in runs[method].values()]
            if values:
                axes.plot(values, [place] * len(values), "o", ms=3, alpha=0.4, color="C0")
                axes.plot(statistics.mean(values), place, "D", ms=8, color="C0")
        axes.axvline(
            statistics.mean(before[digit][name] for digit in DIGITS), color="#777", linewidth=0.8
        )
        axes.set_yticks(range(len(methods)), methods)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(PLOT)


def main() -> None:
    base, judge = load_model(DIGITS_MODEL), ConvJudge.load(DIGITS_MODEL / "evaluation")
    before = {digit: measure(base, judge, digit, LatentCache(CACHE)) for digit in DIGITS}
    plot(before)
    others = [digit for digit in DIGITS if digit not in (TUNED_ON, SETTLED_ON)]
    text = "\n\n".join(
        (
            f"![{PLOTTED}]({PLOT.relative_to(HERE).as_posix()})",
            "### Retain set with all other classes",
            table(BALANCED, before=before),
            f"### The same without *{TUNED_ON}* and *{SETTLED_ON}*, by which choices were made",
            table(BALANCED, others, before),
            "### Retain set with two other classes",
            table(TWO, before=before),
            "### Beside the paper's Table 1",
            against_paper(),
            order_of_paper(),
            f"### The search on *{TUNED_ON}*, and in bold what it chose",
            search_table(),
        )
    )
    put(APPENDIX, BEGIN, END, text)
    put(README, BEGIN, END, table(BALANCED))
    refresh(README, APPENDIX)
    say(text)


if __name__ == "__main__":
    main()
