"""Theorem 4 against oracles without shared code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from torch import Tensor
from torchjd.aggregation import DualProj, PCGrad, UPGrad

from unlearn_core.unlearning.rules import (
    LARGEST_EXCESS,
    LIMITED,
    RULES,
    Gram,
    combine,
    excess_over,
    gram,
    limited,
    nash,
    plain_sum,
    restricted,
)

Gradient = list[Tensor]

shapes = st.lists(
    st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple), min_size=1, max_size=4
)
scales = st.floats(-4, 4).map(lambda exponent: 10.0**exponent)
retain_weights = st.floats(0, 20)
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
RESTRICTING = ("restricted gradient", "dual cone", "Nash (MUNBa)")  # they raise neither loss
narrow = st.sampled_from([(torch.bfloat16, 2.0**-6), (torch.float16, 2.0**-8)])
"""Types with few bits, with the relative precision of an inner product."""


@st.composite
def gradient_pairs(
    draw: st.DrawFn, dtype: torch.dtype = torch.float32
) -> tuple[Gradient, Gradient]:
    """Two Gaussian gradients over random shapes, each with its own scale."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    sizes = draw(shapes)
    forget, retain = (
        [torch.randn(size, generator=generator).mul(scale).to(dtype) for size in sizes]
        for scale in (draw(scales), draw(scales))
    )
    return forget, retain


@st.composite
def conflicts(draw: st.DrawFn) -> tuple[Gradient, Gradient]:
    """Two gradients at an obtuse angle, but not opposite."""
    forget, retain = draw(gradient_pairs())
    if dot(forget, retain) > 0:
        retain = [-r for r in retain]
    assume(-0.999 < gram(forget, retain).cosine < -0.001)
    return forget, retain


def flat(gradient: Gradient) -> Tensor:
    return torch.cat([g.flatten().double() for g in gradient])


def dot(left: Gradient, right: Gradient) -> float:
    return flat(left).dot(flat(right)).item()


def norm(gradient: Gradient) -> float:
    return flat(gradient).norm().item()


def direction(
    forget: Gradient, retain: Gradient, retain_weight: float, method: str = "restricted gradient"
) -> Gradient:
    coefficients = RULES[method](gram(forget, retain), retain_weight)
    return [combine(f, r, coefficients) for f, r in zip(forget, retain, strict=True)]


def deltas(forget: Gradient, retain: Gradient) -> tuple[Gradient, Gradient]:
    """delta_f and delta_r, derived from the direction, which is linear in the retain weight."""
    balance = norm(forget) / norm(retain)  # so that neither is lost in rounding
    delta_f = direction(forget, retain, 0.0)
    both = direction(forget, retain, balance)
    return delta_f, [(d - f) / balance for d, f in zip(both, delta_f, strict=True)]


def test_golden_values_of_pcgrad() -> None:
    """The example for PCGrad in TorchJD's documentation."""
    forget, retain = [torch.tensor([-4.0, 1.0, 1.0])], [torch.tensor([6.0, 1.0, 1.0])]
    expected = torch.tensor([0.5848, 3.8012, 3.8012])
    torch.testing.assert_close(direction(forget, retain, 1.0)[0], expected, atol=1e-4, rtol=0)


@given(gradient_pairs())
def test_retain_weight_one_is_pcgrad(pair: tuple[Gradient, Gradient]) -> None:
    forget, retain = pair
    oracle = PCGrad()(torch.stack([flat(forget), flat(retain)]))
    result = flat(direction(forget, retain, 1.0))
    size = norm(forget) + norm(retain)
    torch.testing.assert_close(result, oracle, rtol=1e-4, atol=1e-5 * size)


@given(conflicts(), retain_weights)
def test_it_is_the_weighted_sum_of_projections_on_the_dual_cone(
    pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    """Definition 3, for any lambda. The dual cone contains the directions that raise neither loss;
    ``delta_f`` and ``delta_r`` are its nearest points to the gradients, computed by a solver."""
    forget, retain = pair
    # The cone depends only on the angle, so the solver may use normalised rows.
    rows = torch.stack([flat(forget) / norm(forget), flat(retain) / norm(retain)]).numpy()
    delta_f, delta_r = (row + rows.T @ nnls(rows.T, -row)[0] for row in rows)
    expected = norm(forget) * delta_f + retain_weight * norm(retain) * delta_r
    result = flat(direction(forget, retain, retain_weight))
    size = norm(forget) + retain_weight * norm(retain)
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=1e-3, atol=1e-4 * size)


@given(conflicts())
def test_each_part_is_orthogonal_to_the_other_gradient(pair: tuple[Gradient, Gradient]) -> None:
    forget, retain = pair
    delta_f, delta_r = deltas(forget, retain)
    assert abs(dot(delta_f, retain)) <= 1e-4 * norm(forget) * norm(retain)
    assert abs(dot(delta_r, forget)) <= 1e-4 * norm(forget) * norm(retain)


@given(conflicts())
def test_each_part_agrees_with_the_closed_form(pair: tuple[Gradient, Gradient]) -> None:
    """|delta|^2 = |g|^2 sin^2: no part is too long or leaves the plane of the gradients."""
    forget, retain = pair
    sine = math.sqrt(1 - (dot(forget, retain) / norm(forget) / norm(retain)) ** 2)
    for delta, own in zip(deltas(forget, retain), (forget, retain), strict=True):
        assert norm(delta) == pytest.approx(norm(own) * sine, rel=1e-2, abs=1e-4 * norm(own))
        assert dot(delta, own) == pytest.approx(
            norm(delta) ** 2, rel=1e-2, abs=1e-4 * norm(own) ** 2
        )


@given(conflicts(), retain_weights)
def test_a_step_raises_neither_loss(pair: tuple[Gradient, Gradient], retain_weight: float) -> None:
    forget, retain = pair
    step = direction(forget, retain, retain_weight)
    rounding = 1e-5 * (norm(forget) + retain_weight * norm(retain))
    assert dot(step, forget) >= -rounding * norm(forget)
    assert dot(step, retain) >= -rounding * norm(retain)


@pytest.mark.parametrize("method", RESTRICTING)
def test_finite_differences_of_two_quadratics(method: str) -> None:
    """Both losses fall along the direction, while the plain sum raises one of them."""
    generator = torch.Generator().manual_seed(0)
    raised_by_sum = conflict_count = 0
    for _ in range(200):
        theta = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
        centres = torch.randn(2, 6, generator=generator, dtype=torch.float64)
        curvatures = torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1
        curvatures[0] *= 10  # one loss is so steep that the sum raises the other

        def loss(i: int, at: Tensor, c: Tensor = centres, k: Tensor = curvatures) -> Tensor:
            return (k[i] * (at - c[i]).square()).sum()

        forget, retain = (list(torch.autograd.grad(loss(i, theta), [theta])) for i in range(2))
        products = gram(forget, retain)
        if products.cosine > -0.05:
            continue
        conflict_count += 1
        step = direction(forget, retain, 1.0, method)[0]
        h = 1e-5 / step.norm()
        for i in range(2):  # a dual cone step may leave one of them unchanged
            assert loss(i, theta - h * step) < loss(i, theta) + 1e-9
        assert min(loss(i, theta - h * step) - loss(i, theta) for i in range(2)) < -1e-9
        plain = direction(forget, retain, 1.0, "GradDiff")[0]
        raised_by_sum += bool(loss(1, theta - h * plain) > loss(1, theta))
    assert conflict_count >= 10
    assert raised_by_sum >= 10


@given(conflicts(), st.floats(-3, 3).map(lambda exponent: 10.0**exponent))
def test_scaling_one_gradient_scales_only_its_part(
    pair: tuple[Gradient, Gradient], scale: float
) -> None:
    forget, retain = pair
    delta_f, delta_r = deltas(forget, retain)
    scaled_f, same_r = deltas([scale * f for f in forget], retain)
    same_f, scaled_r = deltas(forget, [scale * r for r in retain])
    for part, expected, size in (
        (scaled_f, [scale * d for d in delta_f], scale * norm(forget)),
        (same_r, delta_r, norm(retain)),
        (same_f, delta_f, norm(forget)),
        (scaled_r, [scale * d for d in delta_r], scale * norm(retain)),
    ):
        torch.testing.assert_close(flat(part), flat(expected), rtol=1e-3, atol=1e-4 * size)


@given(gradient_pairs(), retain_weights)
def test_without_conflict_it_is_the_plain_sum(
    pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    forget, retain = pair
    if gram(forget, retain).conflict:
        retain = [-r for r in retain]
    expected = [f + retain_weight * r for f, r in zip(forget, retain, strict=True)]
    for method in ("restricted gradient", "GradDiff", "dual cone"):
        result = direction(forget, retain, retain_weight, method)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 * norm(expected))


@given(conflicts(), retain_weights)
def test_grad_diff_is_the_plain_sum_in_conflict_too(
    pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    forget, retain = pair
    assert plain_sum(gram(forget, retain), retain_weight) == (1.0, retain_weight)


def normalised_rows(forget: Gradient, retain: Gradient) -> np.ndarray:
    return torch.stack([flat(forget) / norm(forget), flat(retain) / norm(retain)]).numpy()


@given(gradient_pairs(), retain_weights)
def test_dual_cone_is_the_projection_of_the_sum(
    pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    """Against a solver."""
    forget, retain = pair
    rows = normalised_rows(forget, retain)
    assume(abs(rows[0] @ rows[1]) < 0.999)
    total = (flat(forget) + retain_weight * flat(retain)).numpy()
    expected = total + rows.T @ nnls(rows.T, -total)[0]
    result = flat(direction(forget, retain, retain_weight, "dual cone")).numpy()
    size = norm(forget) + retain_weight * norm(retain)
    assert result == pytest.approx(expected, rel=1e-3, abs=1e-4 * size)


@given(conflicts())
def test_torchjd_agrees_for_equal_weights(pair: tuple[Gradient, Gradient]) -> None:
    """DualProj projects the mean gradient. UPGrad averages the projected gradients, which for two
    losses is the restricted gradient. TorchJD's solver regularises, hence lengths near one."""
    forget, retain = ([part / norm(one) for part in one] for one in pair)
    assume(gram(forget, retain).cosine > -0.95)
    retain = [0.5 * r for r in retain]
    rows = torch.stack([flat(forget), flat(retain)])
    for method, oracle in (("dual cone", DualProj()), ("restricted gradient", UPGrad())):
        result = flat(direction(forget, retain, 1.0, method))
        torch.testing.assert_close(result, 2 * oracle(rows), rtol=0, atol=2e-3)


@given(gradient_pairs(), st.floats(0.1, 20))
def test_nash_is_the_bargaining_solution(
    pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    """The optimality conditions have one solution: ``x (g_f.d) = 1, y (g_r.d) = lambda``."""
    forget, retain = pair
    products = gram(forget, retain)
    assume(products.cosine > -0.99)  # below, the rounding of the oracle is visible
    x, y = nash(products, retain_weight)
    step = [x * f + y * r for f, r in zip(forget, retain, strict=True)]
    assert x > 0 < y
    assert x * dot(step, forget) == pytest.approx(1, rel=1e-2)
    assert y * dot(step, retain) == pytest.approx(retain_weight, rel=1e-2)


@pytest.mark.parametrize("retain_weight", [0.0, 1e-30, 1e-20, 1e-8, 1e8, 1e20])
@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_nash_accepts_any_weight(retain_weight: float, cosine: float) -> None:
    """With weight 0, the step must still not raise the retain loss."""
    x, y = nash(Gram(4.0, 6 * cosine, 9.0), retain_weight)
    assert math.isfinite(x)
    assert math.isfinite(y)
    assert x >= 0 <= y
    if retain_weight == 0 and cosine >= 0:
        assert (x, y) == (pytest.approx(1 / 2), 0.0)
    if retain_weight == 0 and cosine > -1:
        assert x * 6 * cosine + y * 9 >= -1e-9  # g_r . d


@given(st.floats(-5.9, 0), st.floats(-2, 2))
def test_nash_raises_neither_loss_for_nearly_opposite_gradients(
    exponent: float, of_weight: float
) -> None:
    """Up to the precision of fp32; beyond it, there is no step."""
    cosine, retain_weight = 10**exponent - 1, 10**of_weight
    x, y = nash(Gram(4.0, 6 * cosine, 9.0), retain_weight)
    assert x * (4 * x + 6 * cosine * y) == pytest.approx(1, rel=1e-3)
    assert y * (6 * cosine * x + 9 * y) == pytest.approx(retain_weight, rel=1e-3)


@pytest.mark.parametrize("retain_weight", [0.2, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("beyond", [0.0, 1e-7, 9e-7])
def test_nash_takes_no_step_for_opposite_gradients(retain_weight: float, beyond: float) -> None:
    assert nash(Gram(4.0, 6 * (beyond - 1), 9.0), retain_weight) == (0.0, 0.0)


@given(conflicts(), scales, scales)
def test_nash_does_not_depend_on_lengths(
    pair: tuple[Gradient, Gradient], forget_scale: float, retain_scale: float
) -> None:
    forget, retain = pair
    assume(gram(forget, retain).cosine > -0.99)
    scaled = [forget_scale * f for f in forget], [retain_scale * r for r in retain]
    left, right = (flat(direction(f, r, 2.0, "Nash (MUNBa)")) for f, r in (pair, scaled))
    torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-3 * left.norm().item())


@given(gradient_pairs(), retain_weights)
def test_the_rules_for_a_single_loss(pair: tuple[Gradient, Gradient], retain_weight: float) -> None:
    forget, retain = pair
    torch.testing.assert_close(direction(forget, retain, retain_weight, "forget only"), forget)
    torch.testing.assert_close(direction(forget, retain, retain_weight, "retain only"), retain)


@pytest.mark.parametrize("method", list(RULES))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_rule_is_finite_for_zero_and_opposite_gradients(method: str, sign: float) -> None:
    one, zero = [torch.tensor([3.0, 4.0])], [torch.zeros(2)]
    for pair in ((one, zero), (zero, one), (zero, zero), (one, [sign * 2 * one[0]])):
        assert direction(*pair, 3.0, method)[0].isfinite().all()


@pytest.mark.parametrize("retain_weight", [0.0, 1.0, 5.0])
def test_orthogonal_gradients_are_no_conflict(retain_weight: float) -> None:
    assert restricted(Gram(4.0, 0.0, 9.0), retain_weight) == (1.0, retain_weight)


@pytest.mark.parametrize("method", [*RESTRICTING, "GradDiff"])
@given(pair=gradient_pairs(), retain_weight=retain_weights)
def test_a_zero_gradient_leaves_the_other_unchanged(
    method: str, pair: tuple[Gradient, Gradient], retain_weight: float
) -> None:
    forget, retain = pair
    zero = [torch.zeros_like(f) for f in forget]
    assert norm(direction(zero, zero, retain_weight, method)) == 0
    torch.testing.assert_close(direction(forget, zero, retain_weight, method), forget)
    torch.testing.assert_close(
        direction(zero, retain, retain_weight, method), [retain_weight * r for r in retain]
    )
    assert gram(forget, zero).cosine == 0
    assert not gram(forget, zero).conflict


@pytest.mark.parametrize("method", RESTRICTING)
@given(pair=gradient_pairs(), scale=scales)
def test_opposite_gradients_cancel(
    method: str, pair: tuple[Gradient, Gradient], scale: float
) -> None:
    """No direction lowers both, so the model must not change."""
    forget = pair[0]
    retain = [-scale * f for f in forget]
    step = direction(forget, retain, 2.0, method)
    assert norm(step) <= 1e-4 * (norm(forget) + 2 * norm(retain))
    assert gram(forget, retain).cosine == pytest.approx(-1)


@given(gradient_pairs())
def test_parallel_gradients_add(pair: tuple[Gradient, Gradient]) -> None:
    forget = pair[0]
    step = direction(forget, [3 * f for f in forget], 2.0)
    torch.testing.assert_close(step, [7 * f for f in forget], rtol=1e-4, atol=1e-5 * norm(forget))


@given(gradient_pairs(), dtypes)
def test_inner_products_are_those_of_the_flat_vectors(
    pair: tuple[Gradient, Gradient], dtype: torch.dtype
) -> None:
    forget, retain = ([g.to(dtype) for g in gradient] for gradient in pair)
    products = gram(forget, retain)
    assert products.forget_forget == pytest.approx(norm(forget) ** 2, rel=1e-5)
    assert products.retain_retain == pytest.approx(norm(retain) ** 2, rel=1e-5)
    scale = norm(forget) * norm(retain)
    assert products.forget_retain == pytest.approx(dot(forget, retain), abs=1e-5 * scale)
    assert -1 <= products.cosine <= 1
    assert products.cosine == pytest.approx(dot(forget, retain) / scale, abs=1e-4)


def test_bfloat16_products_are_summed_in_float32() -> None:
    """4,096 ones: a sum in bfloat16 gets stuck at 256."""
    ones = [torch.ones(64, dtype=torch.bfloat16) for _ in range(64)]
    assert gram(ones, ones) == Gram(4096.0, 4096.0, 4096.0)


@pytest.mark.parametrize("method", RESTRICTING)
@given(pair=gradient_pairs(), retain_weight=retain_weights, kind=narrow)
def test_narrow_types_preserve_the_type_and_the_guarantee(
    method: str,
    pair: tuple[Gradient, Gradient],
    retain_weight: float,
    kind: tuple[torch.dtype, float],
) -> None:
    dtype, rounding = kind
    # Both normalised: float16 ranges only from 6e-8 to 65,504.
    forget, retain = ([(g / norm(side)).to(dtype) for g in side] for side in pair)
    step = direction(forget, retain, retain_weight, method)
    assert {g.dtype for g in step} == {dtype}
    if gram(forget, retain).conflict:
        largest = norm(forget) + retain_weight * norm(retain)
        coefficients = RULES[method](gram(forget, retain), retain_weight)
        largest += abs(coefficients[0]) * norm(forget) + abs(coefficients[1]) * norm(retain)
        assert dot(step, forget) >= -rounding * largest * norm(forget)
        assert dot(step, retain) >= -rounding * largest * norm(retain)


@pytest.mark.parametrize("scale", [1e-30, 1e-18])
@pytest.mark.parametrize("swap", [False, True])
def test_gradients_of_very_different_size(scale: float, swap: bool) -> None:
    """The squared norm of one may underflow in float32 and count as zero; the step stays finite."""
    large, small = [torch.tensor([-1.0, 2.0])], [torch.tensor([3.0, 1.0]) * scale]
    step = direction(small, large, 1.0) if swap else direction(large, small, 1.0)
    assert all(g.isfinite().all() for g in step)
    assert dot(step, large) > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_a_gradient_that_is_not_finite_is_refused(bad: float, side: int) -> None:
    gradients = [torch.ones(3), torch.ones(2)], [torch.ones(3), torch.ones(2)]
    gradients[side][1][0] = bad
    with pytest.raises(ValueError, match="learning_rate"):
        gram(*gradients)


@pytest.mark.parametrize(
    "retain",
    [
        [torch.ones(2, 3)],
        [torch.ones(3, 2), torch.ones(1)],
        [],
        [torch.ones(6)],
    ],
)
def test_gradients_of_different_parameters_are_refused(retain: Gradient) -> None:
    with pytest.raises(ValueError, match="same parameters"):
        gram([torch.ones(3, 2)], retain)


def test_combining_changes_neither_gradient() -> None:
    forget, retain = torch.ones(2), torch.tensor([1.0, 2.0])
    assert combine(forget, retain, (2.0, -3.0)).tolist() == [-1.0, -4.0]
    assert forget.tolist() == [1.0, 1.0]
    assert retain.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("excess", [-1.0, -0.4, 0.0, 0.7])
def test_the_limited_rule_is_the_nearest_direction_that_keeps_its_limit(
    seed: int, excess: float
) -> None:
    """The quadratic program ``min |v - g_f|^2`` with ``v.g_r >= psi``, by a general solver."""
    forget, retain = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)).double()
    least = excess * forget.norm() * retain.norm()
    solution = minimize(
        lambda v: ((v - forget.numpy()) ** 2).sum(),
        retain.numpy(),
        constraints={"type": "ineq", "fun": lambda v: v @ retain.numpy() - least.item()},
    )
    result = direction([forget], [retain], excess, LIMITED)[0]
    torch.testing.assert_close(result, torch.from_numpy(solution.x), rtol=1e-3, atol=1e-3)


@given(gradient_pairs(), st.floats(-2.0, 10.0))
def test_the_limited_rule_keeps_its_limit_with_the_smallest_weight(
    pair: tuple[Gradient, Gradient], excess: float
) -> None:
    forget, retain = pair
    sizes = norm(forget) * norm(retain)
    _, weight = limited(gram(forget, retain), excess)
    rate = dot(direction(forget, retain, excess, LIMITED), retain) / sizes
    assert rate >= excess - 1e-4
    assert weight >= 0
    if weight > 0:
        assert rate == pytest.approx(excess, abs=1e-3)
    if excess <= -1.001:
        assert weight == 0, "far below the limit, forgetting is free"


def test_the_excess_is_relative_to_the_limit() -> None:
    assert excess_over(0.2, 0.0) == -1.0
    assert excess_over(0.2, 0.2) == 0.0
    assert excess_over(0.2, 0.5) == pytest.approx(1.5)
    assert excess_over(0.2, 50.0) == LARGEST_EXCESS
    assert excess_over(0.0, 0.0) == excess_over(0.0, 1.0) == LARGEST_EXCESS
