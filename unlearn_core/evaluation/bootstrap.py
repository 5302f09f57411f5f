"""How sure a figure is: intervals for means and shares over a sample of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal distribution's quantile for CONFIDENCE, two-sided
RESAMPLES = 2000
SEED = 0  # the same pictures always give the same interval


@dataclass(frozen=True)
class Interval:
    """Made so that 95 of 100 intervals like it hold the true value."""

    low: float
    high: float


def wilson(count: int, total: int) -> Interval:
    """Wilson's score interval for a share (Wilson 1927): unlike a bootstrap it has a width where
    all pictures agree, for none of 64 is no proof of none at all.

    Args:
        count: how many of ``total`` do; ``total`` is 1 or more.
    """
    share = count / total
    middle = share + Z**2 / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    scale = 1 + Z**2 / total
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    # At the ends the formula is exact, which rounding must not undo.
    return Interval(0.0 if count == 0 else low, 1.0 if count == total else high)


def bootstrap(values: Tensor, weights: Tensor | None = None) -> Interval:
    """Percentile bootstrap (Efron 1979) of a mean: pictures are drawn again with replacement,
    ``RESAMPLES`` times.

    The mean of paired differences is bootstrapped like any other: give the differences.

    Args:
        values: one a picture, [N], N >= 1.
        weights: of each picture in the mean, [N]; default: all alike.
    """
    values = values.double()
    weights = torch.ones_like(values) if weights is None else weights.double()
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    means = (values * weights)[rows].sum(1) / weights[rows].sum(1)  # [RESAMPLES]
    tail = (1 - CONFIDENCE) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return Interval(low, high)


def share_interval(right: Tensor, asked: Tensor) -> Interval:
    """Interval of the share ``right.sum() / asked.sum()``, where one picture may be asked several
    things: those of one picture are no independent answers, so whole pictures are resampled.

    Where each is asked one thing, or all pictures agree, it is ``wilson``'s.

    Args:
        right, asked: counts of each picture, [N]; ``asked`` is 1 or more.
    """
    share = right.double() / asked
    if (asked == 1).all() or (share == share[0]).all():
        agreeing = round(share.sum().item())
        return wilson(agreeing, len(share))
    return bootstrap(share, asked)
