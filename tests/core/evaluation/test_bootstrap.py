"""Intervals compared with closed forms and scipy, and their coverage."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.evaluation.bootstrap import Z, bootstrap, share_interval, wilson


@given(st.integers(1, 400), st.data())
def test_wilson_is_the_inversion_of_the_score_test(total: int, data: st.DataObject) -> None:
    """Its ends solve (share - p)^2 = z^2 p (1 - p) / n for p."""
    count = data.draw(st.integers(0, total))
    interval, share = wilson(count, total), count / total
    assert 0 <= interval.low <= share <= interval.high <= 1
    for p in (interval.low, interval.high):
        assert (share - p) ** 2 == pytest.approx(Z**2 * p * (1 - p) / total, abs=1e-9)


@pytest.mark.parametrize(("count", "total"), [(0, 64), (2, 64), (33, 64), (64, 64), (1, 1)])
def test_wilson_agrees_with_scipy(count: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(count, total).proportion_ci(0.95, "wilson")
    ours = wilson(count, total)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_of_0_or_1_has_an_interval_with_a_width() -> None:
    assert wilson(0, 64).high == pytest.approx(0.0566, abs=1e-4)
    assert wilson(64, 64).low == pytest.approx(1 - 0.0566, abs=1e-4)


def test_bootstrap_of_many_is_the_normal_interval() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(1)) * 3 + 5
    interval = bootstrap(values)
    half = Z * values.std().item() / math.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean().item() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean().item() + half, abs=0.02)


def test_bootstrap_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = torch.rand(40, generator=torch.Generator().manual_seed(2)).double() ** 3
    theirs = stats.bootstrap(
        (values.numpy(),), lambda x, axis: x.mean(axis), n_resamples=20_000, method="percentile",
        rng=0,
    ).confidence_interval  # fmt: skip
    ours = bootstrap(values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_paired_differences_have_narrower_intervals() -> None:
    """Prompts differ more from each other than before from after; pairing removes that spread."""
    generator = torch.Generator().manual_seed(3)
    before = torch.randn(60, generator=generator)
    after = before - 0.2 + 0.05 * torch.randn(60, generator=generator)
    change, alone = bootstrap(after - before), bootstrap(after)
    assert change.high < 0
    assert change.high - change.low < 0.2 * (alone.high - alone.low)


def test_the_bootstrap_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    values = torch.arange(10.0)
    state = torch.random.get_rng_state()
    assert bootstrap(values) == bootstrap(values)
    assert torch.equal(state, torch.random.get_rng_state())


def test_coverage_is_near_the_confidence_level() -> None:
    truth, hits = 0.3, 0
    generator = torch.Generator().manual_seed(4)
    for _ in range(200):
        total = torch.randint(1, 4, (50,), generator=generator).double()
        correct = torch.stack([(torch.rand(3, generator=generator) < truth)[: int(n)].sum()
                               for n in total]).double()  # fmt: skip
        interval = share_interval(correct, total)
        hits += interval.low <= truth <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_answers_about_one_picture_do_not_count_as_independent() -> None:
    """If pictures are right or wrong as a whole, four answers are worth no more than one."""
    whole = torch.tensor([1.0, 0.0] * 20)
    once = share_interval(whole, torch.ones(40))
    four = share_interval(4 * whole, torch.full((40,), 4.0))
    assert once == wilson(20, 40)
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.15)


def test_if_all_pictures_agree_the_interval_is_wilsons() -> None:
    total = torch.full((64,), 3.0)
    assert share_interval(total, total) == wilson(64, 64)
    assert share_interval(0 * total, total) == wilson(0, 64)
