"""Significance of differences between methods: families of tests with Holm's correction."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.chance import BETTER, WORSE, Difference, family, gain
from benchmarks.methods import BESIDE, ESD_LATER, METHODS, OURS, UCE_AS_IN_OURS, UCE_LATER
from benchmarks.records import (
    CONCEPTS,
    FIELD,
    UNSEEN,
    Record,
    distance,
    drift,
    mean_of_shares,
    records,
)

COMPARED: dict[str, tuple[Callable[[Record], float], int]] = {  # figure, and 1 if more is better
    "harmonic mean": (mean_of_shares, 1),
    "alignment, train": (drift("retain_train"), 1),
    "alignment, test": (drift("retain_test"), 1),
    "CMMD": (distance, -1),
}
RG = "RGD (paper)"
AGAINST_RG = ("GradDiff", "SalUn", "RGD, whole retain set", "RGD, stop above")


@dataclass(frozen=True)
class Question:
    """Pairs of methods whose tests answer one question and are corrected together."""

    name: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    concepts: tuple[str, ...]


def _ours_against(*methods: str) -> tuple[tuple[str, str], ...]:
    return tuple((BESIDE.get(method, OURS), method) for method in methods)


OF_RG = tuple(method for method in METHODS if method.startswith("RGD, "))
BASELINES = tuple(method for method in FIELD if method != OURS)
VARIANTS = (UCE_AS_IN_OURS, UCE_LATER, ESD_LATER)  # of baselines
PARTS = tuple(m for m in METHODS if m not in (*FIELD, *OF_RG, *VARIANTS))
QUESTIONS = (
    Question("unseen", "Held-out objects", _ours_against(*BASELINES), UNSEEN),
    Question("scored", "The four scored concepts", _ours_against(*BASELINES), CONCEPTS),
    Question("parts", "Parts of ours", _ours_against(*PARTS, UCE_AS_IN_OURS), CONCEPTS),
    Question(
        "rule",
        "The paper's rule and its variants",
        (*_ours_against(*OF_RG), *((RG, method) for method in AGAINST_RG)),
        CONCEPTS,
    ),
)
Row = tuple[str, str]  # a method, and the method to compare it with


@dataclass(frozen=True)
class Answers:
    """The tests of one question, by row and figure, and the number of runs in each row."""

    question: Question
    tests: dict[tuple[Row, str], Difference]
    runs: dict[Row, int]

    def of(self, figure: str) -> dict[Row, Difference]:
        return {row: test for (row, name), test in self.tests.items() if name == figure}

    def with_verdict(self, figure: str, verdict: str) -> list[Row]:
        return [row for row, test in self.of(figure).items() if test.verdict == verdict]


def answer(question: Question) -> Answers:
    """Gains per concept, as means over the seeds that both methods have: runs of one concept are
    not independent."""
    load = cache(lambda method: records(method, question.concepts))
    gains: dict[tuple[Row, str], tuple[Sequence[float], int]] = {}
    runs: dict[Row, int] = {}
    for method, other in question.pairs:
        theirs = {(r["concept"]["name"], r["seed"]): r for r in load(other)}
        pairs: dict[str, list[tuple[Record, Record]]] = {}
        for mine in load(method):
            concept = mine["concept"]["name"]
            if (match := theirs.get((concept, mine["seed"]))) is not None:
                pairs.setdefault(concept, []).append((mine, match))
        if not pairs:
            continue
        runs[method, other] = sum(map(len, pairs.values()))
        for name, (figure, sign) in COMPARED.items():
            values = [
                statistics.mean(figure(one) - figure(another) for one, another in both)
                for both in pairs.values()
            ]
            gains[(method, other), name] = values, sign
    return Answers(question, family(gains), runs)


def answers() -> dict[str, Answers]:
    return {question.name: answer(question) for question in QUESTIONS}


def full_table(results: Answers) -> str:
    """Every test with its p-value, before and after the correction."""
    lines = [
        "| | concepts | runs | " + " | | ".join(COMPARED) + " | |",
        "| --- | --- | --- |" + " --- | --- |" * len(COMPARED),
    ]
    for row, runs in results.runs.items():
        tests = [results.tests[row, name] for name in COMPARED]
        cells = [f"{row[0]}, less {row[1]}", str(len(tests[0].gains)), str(runs)]
        for test in tests:
            cells += [gain(test.gains), verdict_with_p(test)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict_with_p(test: Difference) -> str:
    """The verdict, with the raw and the corrected p-value."""
    if test.p is None or test.adjusted is None:
        return test.verdict
    return f"{emphasized(test)} ({probability(test.p)}; Holm {probability(test.adjusted)})"


def emphasized(test: Difference) -> str:
    """The verdict, in bold if significant."""
    return f"**{test.verdict}**" if test.verdict in (BETTER, WORSE) else test.verdict


def probability(p: float) -> str:
    """Format with two digits, or as a bound if very small."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def short_table(results: Answers, digits: int = 4) -> str:
    """Only the differences; significant ones in bold, with the verdict."""
    lines = ["| | " + " | ".join(COMPARED) + " |", "| --- |" + " --- |" * len(COMPARED)]
    for row in results.runs:
        cells = [short(results.tests[row, name], digits) for name in COMPARED]
        lines.append(f"| {row[0]}, less {row[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short(test: Difference, digits: int) -> str:
    text = gain(test.gains, digits)
    return f"**{text}, {test.verdict}**" if test.verdict in (BETTER, WORSE) else text
