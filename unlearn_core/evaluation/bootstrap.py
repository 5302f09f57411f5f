"""Confidence intervals of means and shares over a sample of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.devices import in_float64

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal distribution's quantile for CONFIDENCE, two-sided
RESAMPLES = 2000
SEED = 0  # the same pictures always give the same interval


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval: on average, 95 of 100 such intervals contain the true value."""

    low: float
    high: float


def wilson(count: int, total: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927). Unlike a bootstrap it has a width even if
    all pictures agree: 0 of 64 does not prove a true share of 0.

    Args:
        count: number of hits among ``total``, which is 1 or more.
    """
    share = count / total
    middle = share + Z**2 / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    scale = 1 + Z**2 / total
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    # For these counts the formula yields exactly 0 and 1, except for rounding errors.
    return Interval(0.0 if count == 0 else low, 1.0 if count == total else high)


def bootstrap(values: Tensor, weights: Tensor | None = None) -> Interval:
    """Percentile bootstrap (Efron 1979) of a mean: pictures are resampled with replacement,
    ``RESAMPLES`` times.

    For the mean of paired differences, pass the differences.

    Args:
        values: one per picture, [N], N >= 1.
        weights: of each picture in the mean, [N]; default: all equal.
    """
    values = in_float64(values)
    weights = torch.ones_like(values) if weights is None else in_float64(weights)
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    means = (values * weights)[rows].sum(1) / weights[rows].sum(1)  # [RESAMPLES]
    tail = (1 - CONFIDENCE) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return Interval(low, high)


def share_interval(correct: Tensor, total: Tensor) -> Interval:
    """Interval of the share ``correct.sum() / total.sum()`` of answers, with one or more answers
    per picture. Answers about one picture are not independent, so whole pictures are resampled.

    With one answer per picture, or if all pictures agree, it is ``wilson``'s interval.

    Args:
        correct, total: counts of answers per picture, [N]; ``total`` is 1 or more.
    """
    share = in_float64(correct) / total.cpu()
    if (total == 1).all() or (share == share[0]).all():
        return wilson(round(share.sum().item()), len(share))
    return bootstrap(share, total)
