"""Low-rank approximation of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from .weights import fork_rng

OVERSAMPLING, ITERATIONS = 8, 4  # of the randomised SVD (Halko et al. 2011)


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest ``rank`` singular values of a matrix [M, N], or all if there are fewer: left
    vectors [M, r], values [r] in descending order, right vectors [N, r]. The random generators stay
    as they are."""
    if matrix.device.type != "cuda":
        matrix = matrix.cpu()  # a Mac's GPU does not support the SVD
    rank = min(rank, *matrix.shape)
    with fork_rng(matrix.device):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(
            matrix, q=min(rank + OVERSAMPLING, *matrix.shape), niter=ITERATIONS
        )
    return u[:, :rank], s[:rank], v[:, :rank]
