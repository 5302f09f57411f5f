"""Named figures for the pages' sentences, so that none is copied by hand.

A figure stands in a page as ``<!--= name -->0.991<!--/-->``: a reader of the page sees the number
alone. ``refresh`` writes what the records say into each; a test fails when a page is stale.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from benchmarks import chance, digits, digits_comparisons, quality
from benchmarks.chance import BETTER, WORSE, Difference
from benchmarks.comparisons import (
    COMPARED,
    Answers,
    Row,
    answers,
    probability,
)
from benchmarks.digits import BALANCED, TWO, scored
from benchmarks.methods import ABLATIONS, CALMED, METHODS
from benchmarks.quality import SEEDS, slug
from benchmarks.records import (
    COLUMNS,
    CONCEPTS,
    SHOWN,
    SIGNED,
    UNSEEN,
    Record,
    by_concept,
    number,
    records,
)
from unlearn_core.unlearning.settings import UnlearnSettings

PLACE = re.compile(r"<!--= (?P<name>\S+) -->(?P<shown>.*?)<!--/-->", re.DOTALL)
SHORT = {
    "UA": "UA",
    "IRA": "IRA",
    "CRA": "CRA",
    "harmonic mean": "HM",
    "alignment, train": "train",
    "alignment, test": "test",
    "CMMD": "CMMD",
}
"""Figures that the sentences use, and their part of the name."""


def figures() -> dict[str, str]:
    """Everything that a sentence may name, as it is to be shown."""
    found = answers()
    shown: dict[str, str] = {**protocol(found)}
    for tier, concepts in (("unseen", UNSEEN), ("scored", CONCEPTS)):
        for method in METHODS:
            shown |= _means(f"{tier}/{slug(method)}", records(method, concepts))
        for concept in concepts:
            for method in METHODS:
                shown |= _means(f"{concept}/{slug(method)}", records(method, [concept]))
    for name, of_question in found.items():
        shown |= _tests(name, of_question)
    rule = ("ours, step not restricted", "ours, GradDiff")
    shown["rule-effect/largest"] = _largest(found["parts"], rule, tuple(COMPARED))
    shown["calmed/largest"] = _largest(found["parts"], CALMED, ("harmonic mean",))
    return {**shown, **_probes(), **_times(), **_digits()}


def protocol(found: dict[str, Answers]) -> dict[str, str]:
    """What the benchmark's own constants say."""
    usual = UnlearnSettings()
    tested = [test for of in found.values() for test in of.tests.values()]
    tested += _tested_digits().values()
    return {
        "steps": str(usual.steps),
        "batch": str(usual.batch_size),
        "pictures": str(quality.PICTURES),
        "tuning-pictures": str(quality.TUNING_PICTURES),
        "tolerance": f"{quality.TOLERANCE:g}",
        "forgotten": f"{quality.FORGOTTEN:g}",
        "alpha": f"{chance.ALPHA:g}",
        "digit-pictures": str(digits.PICTURES),
        "tests": str(sum(test.p is not None for test in tested)),
        "tests/raw": str(sum(_raw(test) for test in tested)),
        "tests/better": str(sum(test.verdict == BETTER for test in tested)),
        "tests/worse": str(sum(test.verdict == WORSE for test in tested)),
    }


def _means(name: str, found: list[Record]) -> dict[str, str]:
    shown = {}
    for figure, short in SHORT.items():
        groups = by_concept(found, COLUMNS[figure])
        if not groups:
            continue
        values = chance.spread(groups)
        shown[f"{name}/{short}"] = number(figure, values.mean)
        first = by_concept([r for r in found if r["seed"] == SEEDS[0]], COLUMNS[figure])
        if first:
            shown[f"{name}/{short}/seed-{SEEDS[0]}"] = number(figure, chance.spread(first).mean)
        if figure in SIGNED:
            shown[f"{name}/{short}/fine"] = signed(values.mean, 4)
            if values.over_concepts is not None:
                error = values.over_concepts / len(groups) ** 0.5
                shown[f"{name}/{short}/se"] = f"{error:.4f}"
    if found and found[0]["rise_share"] is not None:
        kept = 1 - statistics.mean(record["rise_share"] for record in found)
        shown[f"{name}/neither-rose"] = f"{kept:.1%}".replace("%", " %")
        conflict = statistics.mean(record["conflict_share"] for record in found)
        shown[f"{name}/conflict"] = f"{conflict:.0%}".replace("%", " %")
    return shown


def _probes() -> dict[str, str]:
    """Shares of pictures that show the concept again, means over the concepts."""
    shown = {}
    for method in METHODS:
        found = [r["probes"] for r in records(method, CONCEPTS) if r["probes"]]
        for probe in found[0] if found else ():
            values = [run[probe]["after"] for run in found if run[probe]["before"] >= SHOWN]
            shown[f"returns/{slug(method)}/{slug(probe)}"] = f"{statistics.mean(values):.2f}"
    return shown


def _largest(found: Answers, methods: tuple[str, ...], names: tuple[str, ...]) -> str:
    """The largest difference of these variants in any of these figures."""
    return max(
        f"{abs(test.mean):.4f}"
        for ((_, other), name), test in found.tests.items()
        if other in methods and name in names
    )


def _times() -> dict[str, str]:
    """How many times as long a variant takes as what it varies, on the runs that both have."""
    shown = {}
    for method, varied in ABLATIONS.items():
        mine = records(method, CONCEPTS)
        seeds = {record["seed"] for record in mine}
        theirs = [record for record in records(varied, CONCEPTS) if record["seed"] in seeds]
        seconds = [[COLUMNS["seconds"](r) or 0.0 for r in runs] for runs in (mine, theirs)]
        if all(seconds):
            ratio = statistics.mean(seconds[0]) / statistics.mean(seconds[1])
            shown[f"{slug(method)}/times"] = f"{ratio:.1f}"
    return shown


def _tests(name: str, found: Answers) -> dict[str, str]:
    """Each test's figures, and how many of a figure's tests have which verdict."""
    shown = {
        f"{name}/tests": str(sum(test.p is not None for test in found.tests.values())),
        f"{name}/better": str(sum(t.verdict == BETTER for t in found.tests.values())),
        f"{name}/raw": str(sum(map(_raw, found.tests.values()))),
    }
    beaten = {row[1] for (row, _), test in found.tests.items() if test.verdict == BETTER}
    shown[f"{name}/better-than"] = listed([m for m in METHODS if m in beaten])
    for figure in COMPARED:
        short, tests = SHORT[figure], found.of(figure)
        for row, test in tests.items():
            shown |= _test(f"{name}/{_slugs(row)}/{short}", test, 4)
        ahead = [row for row, test in tests.items() if test.sign * test.mean > 0]
        better = found.with_verdict(figure, BETTER)
        alone = chance.family({row: (test.gains, test.sign) for row, test in tests.items()})
        shown[f"{name}/{short}/tests"] = str(len(tests))
        shown[f"{name}/{short}/ahead"] = str(len(ahead))
        shown[f"{name}/{short}/raw"] = str(sum(map(_raw, tests.values())))
        shown[f"{name}/{short}/better"] = str(len(better))
        by_itself = sum(test.verdict == BETTER for test in alone.values())
        shown[f"{name}/{short}/better-by-itself"] = str(by_itself)
        shown[f"{name}/{short}/better-than"] = listed([other for _, other in better])
    return shown


def _test(name: str, test: Difference, digits_shown: int) -> dict[str, str]:
    shown = {
        name: signed(test.mean, digits_shown),
        f"{name}/size": f"{abs(test.mean):.{digits_shown}f}",
    }
    if len(test.gains) > 1:
        error = chance.standard_error(test.gains)
        shown[f"{name}/se"] = f"{error:.{digits_shown}f}"
    if test.p is not None and test.adjusted is not None:
        shown[f"{name}/p"] = probability(test.p)
        shown[f"{name}/holm"] = probability(test.adjusted)
    return {**shown, f"{name}/verdict": test.verdict}


def signed(value: float, digits_shown: int) -> str:
    """With its sign, unless it rounds to zero."""
    text = f"{value:+.{digits_shown}f}"
    return text if text.strip("+-0.") else text[1:]


def _raw(test: Difference) -> bool:
    """Significant were it the only test."""
    return test.p is not None and test.p <= chance.ALPHA


def _slugs(row: Row) -> str:
    return "/".join(map(slug, row))


def _tested_digits() -> dict[tuple[Row, str], Difference]:
    return {
        key: test
        for key, test in digits_comparisons.differences().items()
        if key[1] in digits_comparisons.TESTED
    }


def _digits() -> dict[str, str]:
    """Means over the digits, and the tests of what one method has over another."""
    shown = {}
    for retain, where in ((BALANCED, "digits"), (TWO, "two-classes")):
        for method in digits.METHODS:
            found: dict[str, list[Record]] = {}
            for task in scored(method):
                if task.retain == retain and (record := task.read()) is not None:
                    found.setdefault(task.digit, []).append(record)
            for name, places in digits_comparisons.FIGURES.items() if found else ():
                groups = [[record[name] for record in runs] for runs in found.values()]
                mean = chance.spread(groups).mean
                shown[f"{where}/{slug(method)}/{name.upper()}"] = f"{mean:.{places}f}"
    tests = _tested_digits()
    for (row, name), test in tests.items():
        places = digits_comparisons.FIGURES[name]
        shown |= _test(f"digits/{_slugs(row)}/{name.upper()}", test, places)
    shown["digits/tests"] = str(len(tests))
    shown["digits/better"] = str(sum(test.verdict == BETTER for test in tests.values()))
    shown["digits/worse"] = str(sum(test.verdict == WORSE for test in tests.values()))
    shown["digits/raw"] = str(sum(map(_raw, tests.values())))
    return shown


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; ``none``."""
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def fill(text: str, known: dict[str, str]) -> str:
    """The text with each named figure as the records say."""

    def one(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in known:
            raise ValueError(f"the page names the figure {name!r}, which no record gives")
        return f"<!--= {name} -->{known[name]}<!--/-->"

    return PLACE.sub(one, text)


def refresh(*pages: Path) -> None:
    """Write the figures of the pages' sentences anew."""
    known = figures()
    for page in pages:
        page.write_text(fill(page.read_text(encoding="utf-8"), known), encoding="utf-8")
