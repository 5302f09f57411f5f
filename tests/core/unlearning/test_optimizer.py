"""The restricted step against torch's AdamW, a solver, and the change of two real losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from unlearn_core.unlearning.optimizer import Change, RestrictedAdam
from unlearn_core.unlearning.rules import Gram, gram, into_cone, restricted

SHAPES = [(3, 2), (4,), (2, 1, 3)]


def draw(seed: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def run(
    steps: int, *, restrict: bool, weight_decay: float = 0.0, scale: float = 1.0, seed: int = 0
) -> list[tuple[Tensor, Change, Tensor, Tensor]]:
    """For each step: (move, reported change, grad_forget, grad_retain)."""
    parameters = draw(seed)
    optimizer = RestrictedAdam(parameters, weight_decay=weight_decay)
    history = []
    for step in range(steps):
        grad_forget, grad_retain = draw(2 * step + seed + 1), draw(2 * step + seed + 2, scale)
        products = gram(grad_forget, grad_retain)
        before = flat(parameters)
        change = optimizer.step(
            grad_forget, grad_retain, products, restricted(products, 2.0), 1e-2, restrict=restrict
        )
        move = flat(parameters) - before
        history.append((move, change, flat(grad_forget), flat(grad_retain)))
    return history


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_restriction_it_equals_torchs_adamw(weight_decay: float) -> None:
    ours, theirs = draw(0), draw(0)
    optimizer = RestrictedAdam(ours, weight_decay=weight_decay)
    oracle = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=weight_decay)
    for step in range(10):
        grad_forget, grad_retain = draw(step + 1), draw(step + 100)
        for parameter, f, r in zip(theirs, grad_forget, grad_retain, strict=True):
            parameter.grad = 2 * f - 3 * r
        oracle.step()
        products = gram(grad_forget, grad_retain)
        optimizer.step(grad_forget, grad_retain, products, (2.0, -3.0), 1e-2, restrict=False)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("restrict", [False, True])
def test_it_reports_the_change_of_each_loss(restrict: bool) -> None:
    for move, change, forget, retain in run(20, restrict=restrict, weight_decay=0.1):
        rounding = 1e-5 * move.norm().item()
        assert change.forget == pytest.approx(move.dot(forget).item(), rel=1e-3, abs=rounding)
        assert change.retain == pytest.approx(move.dot(retain).item(), rel=1e-3, abs=rounding)


@given(st.integers(0, 10_000), st.floats(-3, 3).map(lambda exponent: 10.0**exponent))
def test_a_restricted_step_raises_neither_loss(seed: int, scale: float) -> None:
    for move, _, forget, retain in run(5, restrict=True, scale=scale, seed=seed):
        assert move.dot(forget) <= 2e-6 * move.norm() * forget.norm()
        assert move.dot(retain) <= 2e-6 * move.norm() * retain.norm()


def test_plain_adam_loses_the_guarantee_of_its_gradient() -> None:
    """The reason for the restriction: gradients inside the cone can give steps outside it."""
    free = run(200, restrict=False)
    assert sum(c.forget > 0 or c.retain > 0 for _, c, _, _ in free) > 20
    restricted_steps = run(200, restrict=True)
    assert not any(c.forget > 0 or c.retain > 0 for _, c, _, _ in restricted_steps)


def test_the_margin_of_one_loss_does_not_raise_the_other() -> None:
    """A strong conflict, and a step that already lowers one of the losses."""
    grad_forget, grad_retain = [torch.tensor([1.0, 0.0])], [torch.tensor([-0.9, 0.4359])]
    products = gram(grad_forget, grad_retain)
    optimizer = RestrictedAdam([torch.zeros(2)])
    optimizer.mean += torch.tensor([0.09, -4.0])  # momentum in another direction
    change = optimizer.step(grad_forget, grad_retain, products, (0.0, 0.0), 1.0, restrict=True)
    assert change.forget <= 0
    assert change.retain <= 0


def test_a_step_that_raises_neither_loss_stays_unchanged() -> None:
    for free, checked in zip(run(1, restrict=False), run(1, restrict=True), strict=True):
        if free[1].forget <= 0 and free[1].retain <= 0:
            torch.testing.assert_close(free[0], checked[0])


def test_the_gradients_stay_unchanged() -> None:
    grad_forget, grad_retain, parameters = draw(1), draw(2), draw(3)
    products = gram(grad_forget, grad_retain)
    RestrictedAdam(parameters).step(
        grad_forget, grad_retain, products, (1.0, 1.0), 1e-2, restrict=True
    )
    torch.testing.assert_close(grad_forget, draw(1), rtol=0, atol=0)
    torch.testing.assert_close(grad_retain, draw(2), rtol=0, atol=0)


@given(st.integers(0, 10_000), *[st.floats(-3, 3).map(lambda exponent: 10.0**exponent)] * 2)
def test_the_correction_agrees_with_a_solver(seed: int, forget: float, retain: float) -> None:
    """The projection on the cone is a nonnegative least-squares problem, which scipy solves."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((2, 5)) * np.array([[forget], [retain]])
    step = rng.standard_normal(5)
    products = Gram(rows[0] @ rows[0], rows[0] @ rows[1], rows[1] @ rows[1])
    correction = into_cone(products, float(rows[0] @ step), float(rows[1] @ step))
    lengths = np.linalg.norm(rows, axis=1)
    expected = nnls((rows / lengths[:, None]).T, step)[0] / lengths
    assert correction == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_parallel_and_opposite_gradients_need_one_correction(sign: float) -> None:
    row, step = np.array([3.0, 4.0]), np.array([1.0, 1.0])
    products = Gram(25.0, sign * 50.0, 100.0)
    rise = float(row @ step)
    a, b = into_cone(products, rise, sign * 2 * rise)
    corrected = step - a * row - b * sign * 2 * row
    assert corrected @ row == pytest.approx(0, abs=1e-9)
    assert min(a, b) >= 0


@pytest.mark.parametrize("products", [Gram(0.0, 0.0, 4.0), Gram(4.0, 0.0, 0.0), Gram(0, 0, 0)])
def test_a_zero_gradient_constrains_nothing(products: Gram) -> None:
    a, b = into_cone(
        products, 1.0 if products.forget_forget else 0.0, 1.0 if products.retain_retain else 0.0
    )
    assert math.isfinite(a)
    assert math.isfinite(b)
    assert a == (0.25 if products.forget_forget else 0.0)
    assert b == (0.25 if products.retain_retain else 0.0)
