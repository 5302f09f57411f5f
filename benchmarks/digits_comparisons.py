"""Significance of differences on the digits, and the paper's figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.chance import Difference, family
from benchmarks.digits import BALANCED, METHODS, scored
from demo.digits import DIGITS

FIGURES = {"ua": 3, "ra": 3, "fid": 2}  # name in a record -> decimal places
BETTER = {"ua": 1, "ra": 1, "fid": -1}  # 1 if more is better
Run = tuple[str, int]  # digit, seed
Runs = Mapping[Run, Mapping[str, Any]]
OF_PAPER = {
    "fine-tune": (0.211, 0.791, 4.25),
    "SalUn": (0.512, 0.434, 14.40),
    "GradDiff": (1.000, 0.734, 14.09),
    "RG": (1.000, 0.752, 9.81),
    "RGD": (1.000, 0.771, 6.54),
}
"""UA, RA and FID of Ko et al., Table 1: CIFAR-10, mean of ten classes."""
PAIRS = tuple(
    (winner, method)
    for winner in ("RG", "RGD", "ours")
    for method in OF_PAPER
    if method != winner and (winner, method) != ("RG", "RGD")
)
TESTED = ("ra", "fid")  # all methods but the weakest reach a UA of 1


def scored_runs() -> dict[str, dict[Run, dict[str, Any]]]:
    """Method -> run -> record, with a retain set of all other classes."""
    return {
        method: {
            (task.digit, task.settings.seed): record
            for task in scored(method)
            if task.retain == BALANCED and (record := task.read())
        }
        for method in METHODS
    }


def digit_by_digit(winner: Runs, loser: Runs, name: str) -> list[float]:
    """The gain of a method over another in a figure, per digit, as means over the seeds that both
    have: runs of one digit are not independent."""
    both = winner.keys() & loser.keys()
    gains = {
        digit: [winner[run][name] - loser[run][name] for run in both if run[0] == digit]
        for digit in DIGITS
    }
    return [statistics.mean(values) for values in gains.values() if values]


def differences() -> dict[tuple[tuple[str, str], str], Difference]:
    """Differences by pair and figure; all tests of ``TESTED`` are one family."""
    runs = scored_runs()
    gains = {
        (pair, name): (values, BETTER[name])
        for pair in PAIRS
        for name in FIGURES
        if (values := digit_by_digit(runs[pair[0]], runs[pair[1]], name))
    }
    tests = family({key: value for key, value in gains.items() if key[1] in TESTED})
    untested = {
        key: Difference(tuple(values), sign, None, None) for key, (values, sign) in gains.items()
    }
    return {**untested, **tests}
