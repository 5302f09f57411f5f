"""Whether what one method has over another is more than chance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LEVEL = 0.95  # of the verdicts, two-sided


def gain(differences: Sequence[float], digits: int = 4) -> str:
    """Mean and its standard error."""
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} ± {standard_error(differences):.{digits}f}"


def standard_error(differences: Sequence[float]) -> float:
    return statistics.stdev(differences) / len(differences) ** 0.5


def verdict(gains: Sequence[float]) -> str:
    """By Student's t-test of gains that are independent of each other, of which more is better."""
    from scipy.stats import t  # brought along by scikit-learn, which only benchmarks need

    if len(gains) < 3:
        return "too few"
    mean, error = statistics.mean(gains), standard_error(gains)
    if abs(mean) <= t.ppf((1 + LEVEL) / 2, len(gains) - 1) * error:
        return "no difference"
    return "better" if mean > 0 else "**worse**"
