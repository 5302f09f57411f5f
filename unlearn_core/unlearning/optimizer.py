"""Adam with an optional restriction of the step itself, not only of its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .pieces import Piece, pieces
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
        self.pieces = tuple(pieces(parameters, [p is not None for p in self.protections]))
        device, count = parameters[0].device, sum(p.numel() for p in parameters)
        self.mean, self.square = (torch.zeros(count, device=device) for _ in range(2))
        self.steps = 0

    def reset(self) -> None:
        """Forget all earlier steps."""
        self.mean.zero_()
        self.square.zero_()
        self.steps = 0

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The moving averages of the direction and of its square."""
        return self.mean, self.square

    def restore(self, moments: Sequence[Tensor], steps: int) -> None:
        """Continue after ``steps`` steps with these ``moments``."""
        for moment, stored in zip(self.moments, moments, strict=True):
            moment.copy_(stored)
        self.steps = steps

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
        # The updates are computed twice, piece by piece, to avoid a third set of gradients.
        sums = []
        for piece in self.pieces:
            f, r = piece.flat(grad_forget).float(), piece.flat(grad_retain).float()
            direction = combine(f, r, coefficients)
            self.mean[piece.span].lerp_(direction, 1 - BETAS[0])
            self.square[piece.span].lerp_(direction.square_(), 1 - BETAS[1])
            update = self._update(piece, learning_rate)
            sums.append(torch.stack([update.dot(f), update.dot(r)]))
        change = Change(*torch.stack(sums).sum(0).tolist())
        more_forget = more_retain = 0.0
        if restrict:
            more_forget, more_retain = into_cone(
                products,
                change.forget + MARGIN * abs(change.forget),
                change.retain + MARGIN * abs(change.retain),
            )
        for piece in self.pieces:
            update = self._update(piece, learning_rate)
            if more_forget:
                update.sub_(piece.flat(grad_forget), alpha=more_forget)
            if more_retain:
                update.sub_(piece.flat(grad_retain), alpha=more_retain)
            piece.add(self.parameters, update)
        f, r, c = products.forget_forget, products.retain_retain, products.forget_retain
        return Change(
            change.forget - more_forget * f - more_retain * c,
            change.retain - more_forget * c - more_retain * r,
        )

    def _update(self, piece: Piece, learning_rate: float) -> Tensor:
        """The update of a piece by AdamW, not restricted; a vector. Only Adam's part is protected:
        the decay is to reach every weight."""
        first, second = (1 - beta**self.steps for beta in BETAS)
        scale = self.square[piece.span].sqrt().div_(math.sqrt(second)).add_(EPS)
        update = torch.div(self.mean[piece.span], scale, out=scale).mul_(-learning_rate / first)
        protection = self.protections[piece.first]
        if protection is not None:
            update = (update.view_as(self.parameters[piece.first]) @ protection).view(-1)
        if self.weight_decay:
            decay = learning_rate * self.weight_decay
            update.sub_(piece.flat(self.parameters), alpha=decay)
        return update


WARM_UP = 0.1  # share of the steps in which the learning rate grows from zero


def constant(step: int, steps: int) -> float:
    """A constant factor after a short warm-up, in which Adam estimates the gradients' scale."""
    return min(1.0, step / max(1.0, WARM_UP * steps))


def linear(step: int, steps: int) -> float:
    """Linear decay to zero after the warm-up: the last steps smooth out the disturbance of the
    first."""
    return constant(step, steps) * (1 - (step - 1) / steps)


SCHEDULES: dict[str, Callable[[int, int], float]] = {"linear": linear, "constant": constant}
