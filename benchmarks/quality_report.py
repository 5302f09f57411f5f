"""Tables and a plot of what ``benchmarks.quality`` has measured so far, as ``benchmarks/README.md``
and ``docs/results.md`` show them: ``python -m benchmarks.quality_report``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chance import gain, verdict
from benchmarks.methods import ABLATIONS, BESIDE, METHODS, OURS
from benchmarks.quality import (
    FORGOTTEN,
    OBJECTS,
    STYLES,
    TIERS,
    TUNED_ON,
    harmonic_mean,
    read,
    scored_tasks,
    seeds_of,
    tuned,
    tuning_tasks,
)
from unlearn_core.job.console import say

HERE = Path(__file__).parent
README, FRONT, PLOT = (
    HERE / "README.md",
    HERE.parent / "docs" / "results.md",
    HERE / "results" / "quality.png",
)
PLOTTED = "Forgetting against keeping: a small mark is one run, a large one a method's mean"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
FRONT_BEGIN, FRONT_END = "<!-- results -->", "<!-- end of results -->"
CONCEPTS = TIERS["small"]
FIELD = tuple(method for method in METHODS if "," not in method)  # the others vary one of these
Record = dict[str, Any]


def drift(side: str) -> Callable[[Record], float]:
    """How much the alignment of retained pictures has changed."""
    return lambda r: r["after"]["alignment"][side] - r["before"]["alignment"][side]


def both_drifts(record: Record) -> float:
    """Train and test prompts of one run share its damage: they count as one."""
    return (drift("retain_train")(record) + drift("retain_test")(record)) / 2


def mean_of_shares(record: Record) -> float:
    """The harmonic mean after unlearning."""
    return harmonic_mean(record["after"])


COLUMNS: dict[str, Callable[[Record], float | None]] = {
    "UA": lambda r: r["after"]["unlearning_accuracy"],
    "IRA": lambda r: r["after"]["in_domain_retain"],
    "CRA": lambda r: r["after"]["cross_domain_retain"],
    "CRA, forgotten prompts": lambda r: r["after"]["cross_domain_forget"],
    "harmonic mean": mean_of_shares,
    "alignment, train": drift("retain_train"),
    "alignment, test": drift("retain_test"),
    "CMMD": lambda r: r["retain_distance"],
    "raised a loss": lambda r: r["rise_share"],
    "seconds": lambda r: r.get("gpu_seconds", r.get("cpu_seconds")),
    "GiB": lambda r: r["peak_bytes"] / 2**30,
}
SHARES = ("UA", "IRA", "CRA")
SIDES = ("before", "after")
OF_SEARCH = (*SHARES, "harmonic mean", "alignment, train", "alignment, test", "CMMD")
GAP = 0.003  # the paper's RGD lies this far below its base model
SHOWN = 0.25  # share of pictures; the base model knows few misspelled words
SIGNED = {"alignment, train", "alignment, test"}
PROBED = "shown when probed"
ROUGH = {"seconds": 0, "GiB": 1, PROBED: 2}


def records(method: str, concepts: Sequence[str]) -> list[Record]:
    """What is there of a method's scored runs at the settings that the search has chosen."""
    return [found for task in scored_tasks(method, tuple(concepts)) if (found := read(task))]


def cell(name: str, values: list[float]) -> str:
    """Mean and standard deviation; a dash where nothing is known."""
    if not values:
        return "–"
    digits, sign = ROUGH.get(name, 3), "+" if name in SIGNED else ""
    if len(values) == 1:
        return f"{values[0]:{sign}.{digits}f}"
    mean, spread = statistics.mean(values), statistics.stdev(values)
    return f"{mean:{sign}.{digits}f} ± {spread:.{digits}f}"


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
        runs = f"{len(found)} of {expected(method, concepts)}"
        lines.append(f"| {method} | {runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def unseen_tier() -> tuple[str, ...]:
    """Its table, and what ours has over the others there, once a run of it is there."""
    concepts = TIERS["unseen"]
    rows = [duel(BESIDE.get(m, OURS), m, concepts) for m in METHODS if m != OURS]
    if not any(rows):
        return ()
    title = f"### {', '.join(concepts)}: nobody looked at these while choices were made"
    return title, table(concepts), "\n".join((*DUEL_HEAD, *filter(None, rows)))


def full_tier() -> tuple[str, ...]:
    """Its table, once a method is through."""
    concepts = TIERS["full"]
    if not any(len(records(m, concepts)) == expected(m, concepts) for m in METHODS):
        return ()
    return ("### The full tier: five styles, ten objects", table(concepts))


def expected(method: str, concepts: Sequence[str]) -> int:
    """Runs of a method that is through."""
    return len(concepts) * len(seeds_of(method))


def search_table() -> str:
    """Every run of the search; in bold what it has chosen, where it is complete."""
    lines = [
        "| method | concept | learning rate | retain weight | " + " | ".join(OF_SEARCH) + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(OF_SEARCH),
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
                for name in OF_SEARCH
                if (value := COLUMNS[name](record)) is not None
            ]
            name = f"**{method}**" if settings == tuned(method) else method
            rate, weight = f"{settings.learning_rate:g}", f"{settings.retain_weight:g}"
            cells = (task.concept, rate, weight, *figures)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_table() -> str:
    """Only where the base model shows the concept when it is asked that way: what it never drew
    cannot have been suppressed; in brackets, how many runs are left. All have the same base."""
    found = {method: records(method, CONCEPTS) for method in METHODS}
    probes = {m: [r["probes"] for r in of_m if r["probes"]] for m, of_m in found.items()}
    names = list(next((of_method[0] for of_method in probes.values() if of_method), {}))
    if not names:
        return "No probe has run yet."
    lines = [
        "| method | runs | " + " | ".join(names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    everybody = [run for of_method in probes.values() for run in of_method]
    for method, side, chosen in [
        ("*before unlearning*", "before", everybody),
        *((method, "after", of_method) for method, of_method in probes.items() if of_method),
    ]:
        shares = [
            [run[name][side] for run in chosen if run[name]["before"] >= SHOWN] for name in names
        ]
        cells = [
            cell(PROBED, values) + (f" ({len(values)})" if len(values) < len(chosen) else "")
            for values in shares
        ]
        lines.append(f"| {method} | {len(chosen)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot() -> None:
    """Forgetting against keeping, a point a run, a large one a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    colours = ("black", *(f"C{i}" for i in range(10)))
    for method, marker, colour in zip(FIELD, "*osD^v<>Pph", colours, strict=True):
        points = [
            (r["after"]["unlearning_accuracy"], drift("retain_test")(r))
            for r in records(method, CONCEPTS)
        ]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), marker, ms=3, alpha=0.4, color=colour)
        mean = [statistics.mean(values) for values in zip(*points, strict=True)]
        axes.plot(*mean, marker, ms=10, color=colour, label=method)
    axes.axhline(0, color="#1b1b1f", linewidth=0.8)
    axes.set_xlabel("unlearning accuracy (to the right: forgotten)")
    axes.set_ylabel("change of alignment, held-out retain prompts (up: kept)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    FigureCanvasAgg(figure).print_png(PLOT)


COMPARED: dict[str, tuple[Callable[[Record], float], int]] = {  # and which way is better
    "harmonic mean": (mean_of_shares, 1),
    "alignment, train": (drift("retain_train"), 1),
    "alignment, test": (drift("retain_test"), 1),
    "CMMD": (lambda r: r["retain_distance"], -1),
}
DUEL_HEAD = (
    "| | concepts | runs | " + " | | ".join(COMPARED) + " | |",
    "| --- | --- | --- |" + " --- | --- |" * len(COMPARED),
)


def duel(method: str, other: str, concepts: Sequence[str] = CONCEPTS) -> str | None:
    """A row: what one has over the other, concept by concept: means over the seeds that both have,
    because two runs of one concept are not two concepts."""
    theirs = {(r["concept"]["name"], r["seed"]): r for r in records(other, concepts)}
    pairs: dict[str, list[tuple[Record, Record]]] = {}
    for mine in records(method, concepts):
        concept = mine["concept"]["name"]
        if (found := theirs.get((concept, mine["seed"]))) is not None:
            pairs.setdefault(concept, []).append((mine, found))
    if not pairs:
        return None
    cells = [f"{method}, less {other}", str(len(pairs)), str(sum(map(len, pairs.values())))]
    for figure, sign in COMPARED.values():
        gains = [
            statistics.mean(figure(one) - figure(another) for one, another in both)
            for both in pairs.values()
        ]
        cells += [gain(gains), verdict([sign * value for value in gains])]
    return f"| {' | '.join(cells)} |"


AGAINST_RG = ("GradDiff", "SalUn", "RG, whole retain set", "RG, stop above")


def bar() -> str:
    """What was hoped for, against what came of it: ours above all, and the paper's rule above the
    plain sum, as in the paper."""
    if not records(OURS, CONCEPTS):
        return "Not scored yet."
    rows = [duel(BESIDE.get(method, OURS), method) for method in METHODS if method != OURS]
    rows += [duel("RG (paper)", method) for method in AGAINST_RG]
    lines = [*DUEL_HEAD, *filter(None, rows)]
    lines += [
        "",
        kept_table(),
        "",
        "Steps that raised neither loss of their own batch, to first "
        "order: "
        + ", ".join(
            f"{method} {1 - statistics.mean(r['rise_share'] for r in found):.1%}"
            for method in (OURS, "ours, step not restricted", "ours, GradDiff", "RG (paper)")
            if (found := records(method, CONCEPTS))
        )
        + ".",
    ]
    return "\n".join(lines)


def kept_table() -> str:
    """Whether ours forgets and stays within the paper's gap of the base model, for each concept and
    over all, each side of the prompts by itself: a mean of both would hide what one of them lost.
    """
    sides = ("alignment, train", "alignment, test")
    lines = [
        f"| ours | runs | UA | {' | '.join(sides)} | UA ≥ {FORGOTTEN} | alignment within {GAP} |",
        "| --- |" + " --- |" * 6,
    ]
    for name, concepts in [*((c, [c]) for c in CONCEPTS), ("*all*", CONCEPTS)]:
        found = records(OURS, concepts)
        if not found:
            continue
        accuracies = [COLUMNS["UA"](r) or 0.0 for r in found]
        drifts = [[drift(side)(r) for r in found] for side in ("retain_train", "retain_test")]
        forgotten = statistics.mean(accuracies) >= FORGOTTEN
        kept = all(abs(statistics.mean(values)) <= GAP for values in drifts)
        cells = [cell("UA", accuracies)]
        cells += [cell(side, values) for side, values in zip(sides, drifts, strict=True)]
        cells += ["yes" if met else "**no**" for met in (forgotten, kept)]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rule_table() -> str:
    """The paper's rule beside the plain sum with all else equal, the weight too: the search has
    chosen settings for each by itself."""
    pair = ("RG (paper)", "GradDiff")
    heads = [f"{figure}: {method}" for figure in ("UA", "alignment", "CMMD") for method in pair]
    lines = [
        "| concept | learning rate | retain weight | " + " | ".join(heads) + " |",
        "| --- | --- | --- |" + " --- |" * len(heads),
    ]
    theirs, plain = (
        {
            (task.concept, task.settings.learning_rate, task.settings.retain_weight): record
            for task in tuning_tasks(method)
            if (record := read(task))
        }
        for method in pair
    )
    for place in theirs:
        if place not in plain:
            continue
        both = (theirs[place], plain[place])
        cells = [f"{COLUMNS['UA'](r):.3f}" for r in both]
        cells += [f"{both_drifts(r):+.3f}" for r in both]
        cells += [f"{r['retain_distance']:.3f}" for r in both]
        concept, rate, weight = place
        lines.append(f"| {concept} | {rate:g} | {weight:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def front_table() -> str:
    """For ``docs/results.md``: each concept before and after."""
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
    return "\n".join(of_ours)


def put(file: Path, begin: str, end: str, text: str) -> None:
    """In place of what stands between the two marks."""
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def page() -> str:
    """All that stands between the marks of the benchmarks' page."""
    scored = any(records(method, CONCEPTS) for method in METHODS)
    return "\n\n".join(
        (
            *([f"![{PLOTTED}]({PLOT.relative_to(HERE).as_posix()})"] if scored else []),
            "### All four concepts",
            table(CONCEPTS),
            "### Styles: ink (far from the others), twemoji (beside noto)",
            table(STYLES),
            "### Objects: guitar (far from the others), cat (beside other animals)",
            table(OBJECTS),
            *unseen_tier(),
            *full_tier(),
            "### What was hoped for, run by run",
            bar(),
            "### The restricted gradient and the plain sum at the same settings",
            rule_table(),
            "### What comes back",
            probe_table(),
            f"### The search on *{'*, then *'.join(TUNED_ON)}*, and in bold what it chose",
            search_table(),
        )
    )


def main() -> None:
    if any(records(method, CONCEPTS) for method in METHODS):
        plot()
    text = page()
    put(README, BEGIN, END, text)
    put(FRONT, FRONT_BEGIN, FRONT_END, front_table())
    say(text)


if __name__ == "__main__":
    main()
