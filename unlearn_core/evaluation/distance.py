"""The distance between two sets of pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..foundation.devices import in_float64

BANDWIDTH, SCALE = 10.0, 1000.0  # as in the paper


def cmmd(left: Tensor, right: Tensor) -> float:
    """CLIP maximum mean discrepancy (Jayasumana et al. 2024), 0 for equal sets.

    ``1000 * MMD^2`` with the kernel ``exp(-|x - y|^2 / (2 * 10^2))``, with means over all pairs.
    Unlike FID it does not need thousands of pictures and does not assume a normal distribution.

    Args:
        left, right: CLIP embeddings as unit vectors, [N, D] and [M, D].
    """

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / (2 * BANDWIDTH**2)).mean()

    x, y = in_float64(left), in_float64(right)
    discrepancy = similarity(x, x) + similarity(y, y) - 2 * similarity(x, y)
    return SCALE * max(0.0, discrepancy.item())
