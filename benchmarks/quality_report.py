"""Tables and a plot of the records of ``benchmarks.quality``: ``python -m
benchmarks.quality_report`` writes them into ``benchmarks/README.md``, ``benchmarks/APPENDIX.md``
and ``docs/results.md``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.chance import spread
from benchmarks.comparisons import BASELINES, Answers, answers, full_table, short_table
from benchmarks.figures import refresh
from benchmarks.methods import ABLATIONS, METHODS, OURS
from benchmarks.pages import APPENDIX, FRONT, HERE, README, put, put_block
from benchmarks.quality import (
    FORGOTTEN,
    OBJECTS,
    STYLES,
    TIERS,
    TUNED_ON,
    read,
    tuned,
    tuning_tasks,
)
from benchmarks.records import (
    BEFORE,
    COLUMNS,
    CONCEPTS,
    FIELD,
    PROBED,
    SHARES,
    SHOWN,
    SIDES,
    SUMMARY,
    UNSEEN,
    before,
    both_drifts,
    by_concept,
    cell,
    drift,
    expected,
    number,
    over_seeds,
    records,
)
from unlearn_core.job.console import say

PLOT = HERE / "results" / "quality.png"
PLOTTED = "Forgetting against keeping: a small mark is one run, a large one a method's mean"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
FRONT_BEGIN, FRONT_END = "<!-- results -->", "<!-- end of results -->"
GAP = 0.003  # the paper's RGD is this far below its base model


def table(
    concepts: Sequence[str], methods: Sequence[str] = tuple(METHODS), figures: Sequence[str] = ()
) -> str:
    """A row for each scored method, by default with all figures."""
    names = figures or tuple(COLUMNS)
    lines = ["| method | runs | " + " | ".join(names) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(names))
    for method in methods:
        of_method = records(method, concepts)
        if not of_method:
            continue
        cells = [cell(name, by_concept(of_method, COLUMNS[name])) for name in names]
        runs = f"{len(of_method)} of {expected(method, concepts)}"
        lines.append(f"| {method} | {runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main_table() -> str:
    """The field's methods below the original model, with the held-out objects first."""
    parts = []
    for title, concepts in (
        ("Held-out objects", UNSEEN),
        ("The four scored concepts", CONCEPTS),
    ):
        head, line, *rows = table(concepts, FIELD, SUMMARY).splitlines()
        if rows:
            whole = "\n".join((head, line, base_row(concepts), *rows))
            parts.append(f"**{title}: {', '.join(concepts)}**\n\n{whole}")
    return "\n\n".join(parts)


def base_row(concepts: Sequence[str]) -> str:
    """The shares of the original model, from the records of ours."""
    ours = records(OURS, concepts)
    cells = [
        cell(name, by_concept(ours, before(COLUMNS[name]))) for name in (*SHARES, "harmonic mean")
    ]
    missing = len(SUMMARY) - len(cells)
    return f"| {BEFORE} | | " + " | ".join(cells + ["–"] * missing) + " |"


def unseen_tier(results: Answers) -> tuple[str, ...]:
    """The table of the held-out objects and their tests, once two methods have runs."""
    if not results.runs:
        return ()
    title = f"### Held-out objects: {', '.join(UNSEEN)}"
    return title, table(UNSEEN), full_table(results)


def full_tier() -> tuple[str, ...]:
    """The table of the full tier, once a method has all its runs."""
    concepts = TIERS["full"]
    if not any(len(records(m, concepts)) == expected(m, concepts) for m in METHODS):
        return ()
    return ("### The full tier: five styles, ten objects", table(concepts))


def search_table() -> str:
    """Every run of the search; its result in bold once it is complete."""
    lines = [
        "| method | concept | learning rate | retain weight | " + " | ".join(SUMMARY) + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(SUMMARY),
    ]
    for method in METHODS:
        if method in ABLATIONS:
            continue
        for task in tuning_tasks(method):
            record, settings = read(task), task.settings
            if record is None:
                continue
            figures = [
                number(name, value)
                for name in SUMMARY
                if (value := COLUMNS[name](record)) is not None
            ]
            name = f"**{method}**" if settings == tuned(method) else method
            rate, weight = f"{settings.learning_rate:g}", f"{settings.retain_weight:g}"
            cells = (task.concept, rate, weight, *figures)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_table(methods: Sequence[str] = tuple(METHODS)) -> str:
    """Results of the probes, only for runs whose base model shows the concept under the probe:
    something it never drew cannot have been suppressed. In brackets, the number of such runs. All
    have the same base."""
    probes = {
        method: {r["concept"]["name"]: r["probes"] for r in of_method if r["probes"]}
        for method in methods
        if (of_method := records(method, CONCEPTS))
    }
    names = list(next((run for of_method in probes.values() for run in of_method.values()), {}))
    if not names:
        return "No probe has run yet."
    lines = [
        "| method | runs | " + " | ".join(names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    base = {concept: run for of_method in probes.values() for concept, run in of_method.items()}
    for method, side, of_concepts in [
        (BEFORE, "before", base),
        *((method, "after", of_method) for method, of_method in probes.items() if of_method),
    ]:
        runs = list(of_concepts.values())
        shares = [
            [run[name][side] for run in runs if run[name]["before"] >= SHOWN] for name in names
        ]
        cells = [
            cell(PROBED, [[value] for value in values])
            + (f" [{len(values)}]" if len(values) < len(runs) else "")
            for values in shares
        ]
        lines.append(f"| {method} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot() -> None:
    """Plot forgetting against retention: a small point per run, a large one per method."""
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


def bar(results: dict[str, Answers]) -> str:
    """Ours against the baselines, its parts, and the paper's rule against the plain sum."""
    if not records(OURS, CONCEPTS):
        return "Not scored yet."
    parts = [
        f"#### {results[name].question.title}\n\n{full_table(results[name])}"
        for name in ("scored", "parts", "rule")
        if results[name].runs
    ]
    shares = ", ".join(
        f"{method} {1 - statistics.mean(r['rise_share'] for r in of_method):.1%}"
        for method in (OURS, "ours, step not restricted", "ours, GradDiff", "RGD (paper)")
        if (of_method := records(method, CONCEPTS))
    )
    steps = f"Steps that raised neither loss of their own batch, to first order: {shares}."
    return "\n\n".join((*parts, kept_table(), steps))


def kept_table() -> str:
    """Whether ours forgets and stays within the paper's gap of the base model, for each concept and
    over all. Train and test prompts are separate, because a mean would hide a loss in one of them.
    """
    sides = ("alignment, train", "alignment, test")
    lines = [
        f"| ours | runs | UA | {' | '.join(sides)} | UA ≥ {FORGOTTEN} | alignment within {GAP} |",
        "| --- |" + " --- |" * 6,
    ]
    for name, concepts in [*((c, [c]) for c in CONCEPTS), ("*all*", CONCEPTS)]:
        ours = records(OURS, concepts)
        if not ours:
            continue
        values = {name: by_concept(ours, COLUMNS[name]) for name in ("UA", *sides)}
        means = {name: spread(groups).mean for name, groups in values.items()}
        within = means["UA"] >= FORGOTTEN, all(abs(means[side]) <= GAP for side in sides)
        cells = [cell(figure, groups) for figure, groups in values.items()]
        cells += ["yes" if met else "**no**" for met in within]
        lines.append(f"| {name} | {len(ours)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rule_table() -> str:
    """The paper's rule next to the plain sum at equal settings, including the weight; the search
    selected the settings for each separately."""
    pair = ("RGD (paper)", "GradDiff")
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
    lines = ["| forget | runs | UA | IRA | CRA | alignment |", "| --- |" + " --- |" * 5]
    for concept in CONCEPTS:
        ours = records(OURS, [concept])
        if not ours:
            continue
        cells = [
            f"{statistics.mean(original):.3f} → {over_seeds(name, after)}"
            for name in SHARES
            for original, after in [
                [[COLUMNS[name]({"after": r[side]}) or 0.0 for r in ours] for side in SIDES]
            ]
        ]
        drifts = over_seeds("alignment, test", [drift("retain_test")(r) for r in ours])
        lines.append(f"| {concept} | {len(ours)} | " + " | ".join([*cells, drifts]) + " |")
    return "\n".join(lines)


def page(results: dict[str, Answers]) -> str:
    """The generated part of the appendix."""
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
            *unseen_tier(results["unseen"]),
            *full_tier(),
            "### Differences, with p-values before and after Holm's correction",
            bar(results),
            "### The restricted gradient and the plain sum at the same settings",
            rule_table(),
            "### What comes back",
            probe_table(),
            f"### The search on *{'*, then *'.join(TUNED_ON)}*, and in bold what it chose",
            search_table(),
        )
    )


def blocks(results: dict[str, Answers]) -> dict[str, str]:
    """The tables of the benchmarks' main page, by the names of their marks."""
    differences = "\n\n".join(
        f"**{results[name].question.title}**\n\n{short_table(results[name])}"
        for name in ("unseen", "scored")
        if results[name].runs
    )
    return {
        "main": main_table(),
        "differences": differences,
        "parts": short_table(results["parts"]),
        "rule": short_table(results["rule"]),
        "returns": probe_table((OURS, "ours, cold start", *BASELINES)),
    }


def main() -> None:
    if any(records(method, CONCEPTS) for method in METHODS):
        plot()
    results = answers()
    text = page(results)
    put(APPENDIX, BEGIN, END, text)
    for name, block in blocks(results).items():
        put_block(README, name, block)
    put(FRONT, FRONT_BEGIN, FRONT_END, front_table())
    refresh(README, APPENDIX)
    say(text)


if __name__ == "__main__":
    main()
