"""Tables and a plot of what ``benchmarks.digits`` has measured so far: ``python -m
benchmarks.digits_report`` writes them into ``benchmarks/README.md`` and
``benchmarks/APPENDIX.md``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chance import gain, spread
from benchmarks.comparisons import with_p
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
from benchmarks.records import shown
from demo.digits import DIGITS
from demo.jobs import DIGITS_MODEL
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.job.console import CACHE, say
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.load import load_model

PLOT = HERE / "results" / "digits.png"
PLOTTED = "UA, RA and FID of each method: a small mark is one run, a large one the mean"
BEGIN, END = "<!-- digits -->", "<!-- end of digits -->"
KEEPS_ALL = "fine-tune"  # what does not forget is no rival in keeping


def table(
    retain: str,
    digits: Sequence[str] = DIGITS,
    before: Mapping[str, dict[str, float]] | None = None,
) -> str:
    """``before`` has each digit's figures of the model that was loaded, which no record has."""
    lines = ["| method | runs | UA | RA | FID | raised a loss |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    if before is not None:
        means = {name: statistics.mean(before[digit][name] for digit in digits) for name in FIGURES}
        figures = " | ".join(f"{means[name]:.{places}f}" for name, places in FIGURES.items())
        lines.append(f"| *before* | {len(digits)} | {figures} | |")
    for method in METHODS:
        tasks = [t for t in scored(method) if t.retain == retain and t.digit in digits]
        found: dict[str, list[dict[str, Any]]] = {}
        for task in tasks:
            if (record := task.read()) is not None:
                found.setdefault(task.digit, []).append(record)
        if not found:
            continue
        cells = [
            shown(spread([[r[name] for r in of_digit] for of_digit in found.values()]), places)
            for name, places in (*FIGURES.items(), ("rise_share", 2))
        ]
        runs = f"{sum(map(len, found.values()))} of {len(tasks)}"
        lines.append(f"| {method} | {runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def order_of_paper() -> str:
    """The methods that the paper has, too, best first; without the one that forgets nothing."""
    found = {m: runs for m, runs in scored_runs().items() if m in OF_PAPER}
    runs = {m: list(records.values()) for m, records in found.items()}
    missing = [m for m in OF_PAPER if {digit for digit, _ in found[m]} < set(DIGITS)]
    if missing:
        return f"The order is to be told when all digits are scored with {', '.join(missing)}."
    lines = []
    for place, name, sign in ((1, "ra", -1), (2, "fid", 1)):  # a high RA, a low FID
        here = {m: sign * statistics.mean(r[name] for r in runs[m]) for m in OF_PAPER}
        theirs = {m: sign * figures[place] for m, figures in OF_PAPER.items()}
        ranks = [
            ", ".join(m for m in sorted(figures, key=figures.__getitem__) if m != KEEPS_ALL)
            for figures in (here, theirs)
        ]
        same = "the same order" if ranks[0] == ranks[1] else "**another order**"
        told = f"here {ranks[0]}; in the paper {ranks[1]}: {same}"
        lines.append(f"{name.upper()}, best first: {told}.")
    return " ".join(lines)


def against_paper() -> str:
    """What RG, RGD and ours win over each method, digit by digit, and whether that is more than
    chance, beside what RG and RGD win in the paper."""
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
                cells.append(with_p(test))
        best = OF_PAPER.get(winner, OF_PAPER["RGD"])
        for ours, theirs, places in zip(best, OF_PAPER[method], FIGURES.values(), strict=True):
            cells.append(f"{ours - theirs:+.{places}f}")
        lines.append(f"| {winner}, less {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def search_table() -> str:
    lines = ["| method | learning rate | retain weight | UA | RA | FID |", "| --- |" + " --- |" * 5]
    for method in METHODS:
        chosen = tuned(method)
        for task in tuning(method):
            found = task.read()
            if found is None:
                continue
            shown = f"**{method}**" if task.settings == chosen else method
            figures = " | ".join(f"{found[name]:.{places}f}" for name, places in FIGURES.items())
            rate, weight = task.settings.learning_rate, task.settings.retain_weight
            lines.append(f"| {shown} | {rate:g} | {weight:g} | {figures} |")
    return "\n".join(lines)


def plot(before: Mapping[str, dict[str, float]]) -> None:
    """Each figure over the ten digits: a small mark a run, a large one the mean, and a line where
    the model was that was loaded."""
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
