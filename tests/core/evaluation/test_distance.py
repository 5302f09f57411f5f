"""The distance between sets of pictures against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.digits import frechet
from unlearn_core.evaluation.distance import cmmd


def unit(seed: int, count: int, towards: float = 0.0) -> Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] += towards
    return normalize(drawn, dim=1)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_it_is_the_sum_over_all_pairs(seed: int, left: int, right: int) -> None:
    x, y = unit(seed, left), unit(seed + 1, right)

    def mean(a: Tensor, b: Tensor) -> float:
        pairs = [math.exp(-((p - q).square().sum().item()) / 200) for p in a for q in b]
        return sum(pairs) / len(pairs)

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x))


def test_equal_sets_are_no_distance_apart_and_more_different_ones_are_further() -> None:
    base = unit(0, 200)
    assert cmmd(base, base[torch.randperm(200)]) == pytest.approx(0, abs=1e-9)
    distances = [cmmd(base, unit(1, 200, towards)) for towards in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 10 * distances[0]


def test_frechet_is_the_closed_form_of_shifted_and_stretched_sets() -> None:
    """Of N(0, I) and N(m, k^2 I) in D dimensions: |m|^2 + D (k - 1)^2."""
    drawn = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    drawn = (drawn - drawn.mean(0)) / drawn.std(0)
    assert frechet(drawn, drawn) == pytest.approx(0, abs=1e-3)
    shift = torch.tensor([1.0, -2.0, 0.5])
    stretched = 3 * drawn + shift
    assert frechet(drawn, stretched) == pytest.approx(5.25 + 3 * 4, rel=1e-2)
    assert frechet(stretched, drawn) == pytest.approx(frechet(drawn, stretched))
