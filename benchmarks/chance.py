"""Statistics of the benchmarks: t-tests over concepts, Holm's correction, standard deviations."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

ALPHA = 0.05  # family-wise error rate, two-sided
FEWEST = 3  # concepts required for a test
BETTER, WORSE = "better", "worse"
NOT_SIGNIFICANT, TOO_FEW = "not significant", "too few"
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Spread:
    """Mean of the concepts' means, with two separate standard deviations.

    ``over_concepts`` is the deviation of the concepts' means (each the mean over its seeds);
    ``over_seeds`` is the deviation within a concept, pooled over the concepts. Each is None if
    there are too few values for it.
    """

    mean: float
    over_concepts: float | None
    over_seeds: float | None


def spread(concepts: Sequence[Sequence[float]]) -> Spread:
    """The spread of values, given by concept and seed. No concept may be empty."""
    means = [statistics.mean(values) for values in concepts]
    freedom = sum(len(values) - 1 for values in concepts)
    squares = sum(
        (value - mean) ** 2
        for values, mean in zip(concepts, means, strict=True)
        for value in values
    )
    return Spread(
        statistics.mean(means),
        statistics.stdev(means) if len(means) > 1 else None,
        (squares / freedom) ** 0.5 if freedom else None,
    )


def gain(differences: Sequence[float], digits: int = 4) -> str:
    """Format the mean and its standard error."""
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} ± {standard_error(differences):.{digits}f}"


def standard_error(differences: Sequence[float]) -> float:
    return statistics.stdev(differences) / len(differences) ** 0.5


def interval(differences: Sequence[float], digits: int = 4) -> str:
    """Format the mean of at least two differences, and its 95 % interval by Student's t."""
    from scipy.stats import t  # installed with scikit-learn, which only benchmarks need

    mean = statistics.mean(differences)
    half = float(t.ppf(0.975, len(differences) - 1)) * standard_error(differences)
    low, high = mean - half, mean + half
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def p_value(gains: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's one-sample t-test of independent gains; None for too few."""
    from scipy.stats import t  # installed with scikit-learn, which only benchmarks need

    if len(gains) < FEWEST:
        return None
    mean, error = statistics.mean(gains), standard_error(gains)
    if mean == 0.0:
        return 1.0
    return float(2 * t.sf(abs(mean) / error, len(gains) - 1)) if error else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm (1979), which bound the chance of a single false positive.

    With the m values in ascending order, the k-th (from 0) becomes the largest of
    ``(m - i) * p_i`` for i up to k, and 1 at most.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Difference:
    """One method's gain over another in one figure, as one test of a family."""

    gains: tuple[float, ...]  # one per concept
    sign: int  # 1 if more is better, -1 if less is
    p: float | None
    adjusted: float | None

    @property
    def mean(self) -> float:
        return statistics.mean(self.gains)

    @property
    def verdict(self) -> str:
        if self.adjusted is None:
            return TOO_FEW
        if self.adjusted > ALPHA:
            return NOT_SIGNIFICANT
        return BETTER if self.sign * self.mean > 0 else WORSE


def family(gains: Mapping[Key, tuple[Sequence[float], int]]) -> dict[Key, Difference]:
    """Tests that are corrected together, each given by its gains and its sign."""
    p_values = {key: p_value(values) for key, (values, _) in gains.items()}
    valid = {key: p for key, p in p_values.items() if p is not None}
    adjusted = dict(zip(valid, holm(list(valid.values())), strict=True))
    return {
        key: Difference(tuple(values), sign, p_values[key], adjusted.get(key))
        for key, (values, sign) in gains.items()
    }
