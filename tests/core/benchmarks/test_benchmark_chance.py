"""The benchmarks' statistics, against closed forms, brute force and SciPy."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from benchmarks.chance import Difference, family, holm, p_value, spread


def holm_by_closed_testing(p_values: list[float]) -> list[float]:
    """Holm is the closure of Bonferroni: the adjusted value of a hypothesis is the largest
    Bonferroni value of all the sets of hypotheses that contain it."""
    indices = range(len(p_values))
    sets = [s for n in range(1, len(p_values) + 1) for s in itertools.combinations(indices, n)]
    return [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in indices
    ]


@pytest.mark.parametrize("seed", range(8))
def test_holm_is_the_closure_of_bonferroni(seed: int) -> None:
    draw = random.Random(seed)
    p_values = [draw.random() ** draw.choice((1, 4, 9)) for _ in range(1 + seed)]
    p_values += p_values[:1]  # a tie
    assert holm(p_values) == pytest.approx(holm_by_closed_testing(p_values))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_p_value_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    for gains in ([0.03, 0.1, 0.1, 0.02], [-1.0, 2.0, 0.5], [1.0, 1.1, 1.2, 0.9, 1.05]):
        assert p_value(gains) == pytest.approx(stats.ttest_1samp(gains, 0.0).pvalue)


def test_the_p_value_of_three_has_a_closed_form() -> None:
    """With two degrees of freedom the tail of Student's distribution is elementary."""
    gains = [0.1, 0.2, 0.6]
    t = statistics.mean(gains) / (statistics.stdev(gains) / 3**0.5)
    assert p_value(gains) == pytest.approx(1 - t / math.sqrt(2 + t * t))


@pytest.mark.parametrize(
    ("gains", "p"), [([0.1, 0.2], None), ([0.0, 0.0, 0.0], 1.0), ([0.5, 0.5, 0.5], 0.0)]
)
def test_the_p_value_of_too_few_and_of_no_spread(gains: list[float], p: float | None) -> None:
    assert p_value(gains) == p


def one(gains: list[float], sign: int = 1) -> Difference:
    return family({"only": (gains, sign)})["only"]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.1, 0.1], "too few"),
        ([0.1, 0.11, 0.09], "better"),
        ([-0.1, -0.11, -0.09], "worse"),
        ([0.1, -0.1, 0.05], "not significant"),
        # Of four concepts even 2.9 standard errors may be chance.
        ([0.03, 0.1, 0.1, 0.02], "not significant"),
        ([0.03, 0.1, 0.1, 0.02] * 3, "better"),
    ],
)
def test_a_difference_that_chance_may_make_is_not_significant(
    gains: list[float], verdict: str
) -> None:
    assert one(gains).verdict == verdict


def test_less_is_better_where_the_sign_says_so() -> None:
    assert one([-0.1, -0.11, -0.09], sign=-1).verdict == "better"


def test_a_verdict_does_not_survive_among_many_tests() -> None:
    """p = 0.034: significant by itself, one of many it is not. What has too few concepts is no
    test, and does not count."""
    gains = [0.1, 0.3, 0.35, 0.2]
    by_itself = one(gains)
    assert by_itself.p is not None
    assert 0.01 < by_itself.p < 0.05
    assert by_itself.verdict == "better"
    untestable = {f"few {i}": ([0.1, 0.2], 1) for i in range(9)}
    assert family({"it": (gains, 1), **untestable})["it"].verdict == "better"
    chance = {f"chance {i}": ([0.1, -0.1, 0.05, -0.02], 1) for i in range(9)}
    among_many = family({"it": (gains, 1), **chance})["it"]
    assert among_many.verdict == "not significant"
    assert among_many.adjusted == pytest.approx(10 * by_itself.p)


def test_the_two_spreads_are_told_apart() -> None:
    """Concepts that differ and seeds that do not; then the reverse; then both."""
    concepts = spread([[0.1, 0.1, 0.1], [0.5, 0.5, 0.5]])
    assert concepts.mean == pytest.approx(0.3)
    assert concepts.over_concepts == pytest.approx(0.4 / 2**0.5)
    assert concepts.over_seeds == 0
    seeds = spread([[0.2, 0.4], [0.1, 0.5]])
    assert seeds.over_concepts == pytest.approx(0)
    assert seeds.over_seeds == pytest.approx(((0.02 + 0.08) / 2) ** 0.5)
    uneven = spread([[0.0, 1.0, 2.0], [4.0]])
    assert uneven.mean == pytest.approx(2.5), "each concept counts once"
    assert uneven.over_seeds == pytest.approx(1.0), "a single seed tells nothing of it"


def test_a_spread_that_cannot_be_known_is_none() -> None:
    assert spread([[0.1], [0.2]]).over_seeds is None
    assert spread([[0.1, 0.2]]).over_concepts is None
