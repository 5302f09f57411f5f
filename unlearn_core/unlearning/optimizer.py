"""Adam with an optional restriction of the step itself, not only of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rules import Coefficients, Gram, combine, into_cone

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's usual values
MARGIN = 1e-3  # relative increase of the correction, so that rounding leaves no rise of a loss


@dataclass(frozen=True)
class Change:
    """The change of each loss by a step, to first order: ``grad . step``."""

    forget: float
    retain: float


class RestrictedAdam:
    """AdamW (Loshchilov and Hutter 2019) on ``a g_f + b g_r``, which is never materialised.

    Momentum and Adam's scaling turn the step away from its gradient, so it can lose the guarantee
    of the restricted gradient. ``restrict`` therefore projects each step on the cone of steps that
    raise neither loss.

    Args:
        parameters: the trained tensors; ``step`` changes them in place.
        weight_decay: decoupled, per unit of the learning rate.
        protections: for each parameter a matrix by which its update is multiplied from the right,
            see ``text_weights.protection``; None for none.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        weight_decay: float = 0.0,
        protections: Sequence[Tensor | None] = (),
    ) -> None:
        self.parameters = parameters
        self.weight_decay = weight_decay
        self.protections = protections or [None] * len(parameters)
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(
        self,
        grad_forget: Sequence[Tensor],
        grad_retain: Sequence[Tensor],
        products: Gram,
        coefficients: Coefficients,
        learning_rate: float,
        *,
        restrict: bool,
    ) -> Change:
        """Take one step. The gradients stay unchanged.

        Args:
            products: inner products of the gradients.
            coefficients: ``(a, b)`` of the direction.
            restrict: project the step so that it raises neither loss.
        """
        self.steps += 1
        for i, (f, r) in enumerate(zip(grad_forget, grad_retain, strict=True)):
            direction = combine(f, r, coefficients)
            self.means[i].lerp_(direction, 1 - BETAS[0])
            self.squares[i].lerp_(direction.square_(), 1 - BETAS[1])

        # The updates are computed twice, tensor by tensor, to avoid a third copy of the model.
        change = self._change(grad_forget, grad_retain, learning_rate)
        more_forget = more_retain = 0.0
        if restrict:
            more_forget, more_retain = into_cone(
                products,
                change.forget + MARGIN * abs(change.forget),
                change.retain + MARGIN * abs(change.retain),
            )
        for parameter, update, f, r in zip(
            self.parameters, self._updates(learning_rate), grad_forget, grad_retain, strict=True
        ):
            if more_forget or more_retain:
                update.sub_(f, alpha=more_forget).sub_(r, alpha=more_retain)
            parameter.add_(update)
        f, r, c = products.forget_forget, products.retain_retain, products.forget_retain
        return Change(
            change.forget - more_forget * f - more_retain * c,
            change.retain - more_forget * c - more_retain * r,
        )

    def _updates(self, learning_rate: float) -> Iterator[Tensor]:
        """The update of each parameter by AdamW, protected but not restricted."""
        first, second = (1 - beta**self.steps for beta in BETAS)
        for parameter, mean, square, protection in zip(
            self.parameters, self.means, self.squares, self.protections, strict=True
        ):
            update = mean / square.div(second).sqrt_().add_(EPS)
            update.mul_(-learning_rate / first)
            if self.weight_decay:
                update.sub_(parameter, alpha=learning_rate * self.weight_decay)
            yield update if protection is None else update @ protection

    def _change(
        self, grad_forget: Sequence[Tensor], grad_retain: Sequence[Tensor], learning_rate: float
    ) -> Change:
        sums = torch.zeros(2, device=self.parameters[0].device)
        for update, f, r in zip(
            self._updates(learning_rate), grad_forget, grad_retain, strict=True
        ):
            flat = update.flatten()
            sums += torch.stack([flat.dot(f.flatten()), flat.dot(r.flatten())])
        return Change(*sums.tolist())


WARM_UP = 0.1  # share of the steps in which the learning rate grows from zero


def constant(step: int, steps: int) -> float:
    """A constant factor after a short warm-up, in which Adam estimates the gradients' scale."""
    return min(1.0, step / max(1.0, WARM_UP * steps))


def linear(step: int, steps: int) -> float:
    """Linear decay to zero after the warm-up: the last steps smooth out the disturbance of the
    first."""
    return constant(step, steps) * (1 - (step - 1) / steps)


SCHEDULES: dict[str, Callable[[int, int], float]] = {"linear": linear, "constant": constant}
