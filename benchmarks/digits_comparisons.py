"""Which methods differ on the digits by more than chance, and what the paper reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.chance import Difference, family
from benchmarks.digits import BALANCED, METHODS, scored
from demo.digits import DIGITS

FIGURES = {"ua": 3, "ra": 3, "fid": 2}  # name in a record -> digits shown
BETTER = {"ua": 1, "ra": 1, "fid": -1}  # which way
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
TESTED = ("ra", "fid")  # in UA all but the weakest reach 1


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
    """What a method has more of a figure than another, digit by digit: means over the seeds that
    both have, because two runs of one digit are not two digits."""
    both = winner.keys() & loser.keys()
    gains = {
        digit: [winner[run][name] - loser[run][name] for run in both if run[0] == digit]
        for digit in DIGITS
    }
    return [statistics.mean(found) for found in gains.values() if found]


def differences() -> dict[tuple[tuple[str, str], str], Difference]:
    """By pair and figure; all tests of ``TESTED`` are one family."""
    runs = scored_runs()
    gains = {
        (pair, name): (found, BETTER[name])
        for pair in PAIRS
        for name in FIGURES
        if (found := digit_by_digit(runs[pair[0]], runs[pair[1]], name))
    }
    tested = family({key: value for key, value in gains.items() if key[1] in TESTED})
    untested = {
        key: Difference(tuple(found), sign, None, None) for key, (found, sign) in gains.items()
    }
    return {**untested, **tested}
