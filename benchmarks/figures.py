"""Named figures for the pages' sentences, so that none is copied by hand.

A page contains a figure as ``<!--= name -->0.991<!--/-->``, of which the reader sees only the
number. ``refresh`` updates all figures from the records; a test fails when a page is stale.
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
"""Figures used in the sentences, and their part of the name."""


def figures() -> dict[str, str]:
    """All figures for sentences by name, formatted."""
    results = answers()
    texts: dict[str, str] = {**protocol(results)}
    for tier, concepts in (("unseen", UNSEEN), ("scored", CONCEPTS)):
        for method in METHODS:
            texts |= _means(f"{tier}/{slug(method)}", records(method, concepts))
        for concept in concepts:
            for method in METHODS:
                texts |= _means(f"{concept}/{slug(method)}", records(method, [concept]))
    for name, of_question in results.items():
        texts |= _tests(name, of_question)
    rule = ("ours, step not restricted", "ours, GradDiff")
    texts["rule-effect/largest"] = _largest(results["parts"], rule, tuple(COMPARED))
    texts["calmed/largest"] = _largest(results["parts"], CALMED, ("harmonic mean",))
    return {**texts, **_probes(), **_times(), **_digits()}


def protocol(results: dict[str, Answers]) -> dict[str, str]:
    """The benchmark's own constants and its numbers of tests."""
    defaults = quality.THOROUGH
    tests = [test for of_question in results.values() for test in of_question.tests.values()]
    tests += _digit_tests().values()
    return {
        "steps": str(defaults.steps),
        "batch": str(defaults.batch_size),
        "pictures": str(quality.PICTURES),
        "tuning-pictures": str(quality.TUNING_PICTURES),
        "tolerance": f"{quality.TOLERANCE:g}",
        "forgotten": f"{quality.FORGOTTEN:g}",
        "alpha": f"{chance.ALPHA:g}",
        "digit-pictures": str(digits.PICTURES),
        "tests": str(sum(test.p is not None for test in tests)),
        "tests/raw": str(sum(_raw(test) for test in tests)),
        "tests/better": str(sum(test.verdict == BETTER for test in tests)),
        "tests/worse": str(sum(test.verdict == WORSE for test in tests)),
    }


def _means(name: str, of_method: list[Record]) -> dict[str, str]:
    texts = {}
    for figure, short in SHORT.items():
        groups = by_concept(of_method, COLUMNS[figure])
        if not groups:
            continue
        values = chance.spread(groups)
        texts[f"{name}/{short}"] = number(figure, values.mean)
        first = by_concept([r for r in of_method if r["seed"] == SEEDS[0]], COLUMNS[figure])
        if first:
            texts[f"{name}/{short}/seed-{SEEDS[0]}"] = number(figure, chance.spread(first).mean)
        if figure in SIGNED:
            texts[f"{name}/{short}/fine"] = signed(values.mean, 4)
            if values.over_concepts is not None:
                error = values.over_concepts / len(groups) ** 0.5
                texts[f"{name}/{short}/se"] = f"{error:.4f}"
    if of_method and of_method[0]["rise_share"] is not None:
        share = 1 - statistics.mean(record["rise_share"] for record in of_method)
        texts[f"{name}/neither-rose"] = f"{share:.1%}".replace("%", " %")
        conflict = statistics.mean(record["conflict_share"] for record in of_method)
        texts[f"{name}/conflict"] = f"{conflict:.0%}".replace("%", " %")
    return texts


def _probes() -> dict[str, str]:
    """Shares of pictures that show the concept again, as means over the concepts."""
    texts = {}
    for method in METHODS:
        runs = [r["probes"] for r in records(method, CONCEPTS) if r["probes"]]
        for probe in runs[0] if runs else ():
            values = [run[probe]["after"] for run in runs if run[probe]["before"] >= SHOWN]
            texts[f"returns/{slug(method)}/{slug(probe)}"] = f"{statistics.mean(values):.2f}"
    return texts


def _largest(results: Answers, methods: tuple[str, ...], names: tuple[str, ...]) -> str:
    """The largest difference of these variants in any of these figures."""
    return max(
        f"{abs(test.mean):.4f}"
        for ((_, other), name), test in results.tests.items()
        if other in methods and name in names
    )


def _times() -> dict[str, str]:
    """Time of each variant relative to its original method, on the runs that both have."""
    texts = {}
    for method, original in ABLATIONS.items():
        mine = records(method, CONCEPTS)
        seeds = {record["seed"] for record in mine}
        theirs = [record for record in records(original, CONCEPTS) if record["seed"] in seeds]
        seconds = [[COLUMNS["seconds"](r) or 0.0 for r in runs] for runs in (mine, theirs)]
        if all(seconds):
            ratio = statistics.mean(seconds[0]) / statistics.mean(seconds[1])
            texts[f"{slug(method)}/times"] = f"{ratio:.1f}"
    return texts


def _tests(name: str, results: Answers) -> dict[str, str]:
    """Each test's figures, and the number of tests by figure and verdict."""
    texts = {
        f"{name}/tests": str(sum(test.p is not None for test in results.tests.values())),
        f"{name}/better": str(sum(t.verdict == BETTER for t in results.tests.values())),
        f"{name}/raw": str(sum(map(_raw, results.tests.values()))),
    }
    worse = {row[1] for (row, _), test in results.tests.items() if test.verdict == BETTER}
    texts[f"{name}/better-than"] = enumerate_names([m for m in METHODS if m in worse])
    for figure in COMPARED:
        short, tests = SHORT[figure], results.of(figure)
        for row, test in tests.items():
            texts |= _test(f"{name}/{_slugs(row)}/{short}", test, 4)
        ahead = [row for row, test in tests.items() if test.sign * test.mean > 0]
        better = results.with_verdict(figure, BETTER)
        alone = chance.family({row: (test.gains, test.sign) for row, test in tests.items()})
        texts[f"{name}/{short}/tests"] = str(len(tests))
        texts[f"{name}/{short}/ahead"] = str(len(ahead))
        texts[f"{name}/{short}/raw"] = str(sum(map(_raw, tests.values())))
        texts[f"{name}/{short}/better"] = str(len(better))
        by_itself = sum(test.verdict == BETTER for test in alone.values())
        texts[f"{name}/{short}/better-by-itself"] = str(by_itself)
        texts[f"{name}/{short}/better-than"] = enumerate_names([other for _, other in better])
    return texts


def _test(name: str, test: Difference, places: int) -> dict[str, str]:
    texts = {
        name: signed(test.mean, places),
        f"{name}/size": f"{abs(test.mean):.{places}f}",
    }
    if len(test.gains) > 1:
        error = chance.standard_error(test.gains)
        texts[f"{name}/se"] = f"{error:.{places}f}"
    if test.p is not None and test.adjusted is not None:
        texts[f"{name}/p"] = probability(test.p)
        texts[f"{name}/holm"] = probability(test.adjusted)
    return {**texts, f"{name}/verdict": test.verdict}


def signed(value: float, places: int) -> str:
    """Format with a sign, unless the value rounds to zero."""
    text = f"{value:+.{places}f}"
    return text if text.strip("+-0.") else text[1:]


def _raw(test: Difference) -> bool:
    """Whether the test would be significant if it were the only one."""
    return test.p is not None and test.p <= chance.ALPHA


def _slugs(row: Row) -> str:
    return "/".join(map(slug, row))


def _digit_tests() -> dict[tuple[Row, str], Difference]:
    return {
        key: test
        for key, test in digits_comparisons.differences().items()
        if key[1] in digits_comparisons.TESTED
    }


def _digits() -> dict[str, str]:
    """Means over the digits, and the tests of differences between methods."""
    texts = {}
    for retain, where in ((BALANCED, "digits"), (TWO, "two-classes")):
        for method in digits.METHODS:
            by_digit: dict[str, list[Record]] = {}
            for task in scored(method):
                if task.retain == retain and (record := task.read()) is not None:
                    by_digit.setdefault(task.digit, []).append(record)
            for name, places in digits_comparisons.FIGURES.items() if by_digit else ():
                groups = [[record[name] for record in runs] for runs in by_digit.values()]
                mean = chance.spread(groups).mean
                texts[f"{where}/{slug(method)}/{name.upper()}"] = f"{mean:.{places}f}"
    tests = _digit_tests()
    for (row, name), test in tests.items():
        places = digits_comparisons.FIGURES[name]
        texts |= _test(f"digits/{_slugs(row)}/{name.upper()}", test, places)
    texts["digits/tests"] = str(len(tests))
    texts["digits/better"] = str(sum(test.verdict == BETTER for test in tests.values()))
    texts["digits/worse"] = str(sum(test.verdict == WORSE for test in tests.values()))
    texts["digits/raw"] = str(sum(map(_raw, tests.values())))
    return texts


def enumerate_names(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; ``none``."""
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def fill(text: str, texts: dict[str, str]) -> str:
    """Update each named figure in the text."""

    def one(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in texts:
            raise ValueError(
                f"figure {name!r} on the page must be one that the records give; correct its name"
            )
        return f"<!--= {name} -->{texts[name]}<!--/-->"

    return PLACE.sub(one, text)


def refresh(*pages: Path) -> None:
    """Update the figures in the pages' sentences."""
    texts = figures()
    for page in pages:
        page.write_text(fill(page.read_text(encoding="utf-8"), texts), encoding="utf-8")
