"""The restricted gradient of Ko et al. 2024 (NeurIPS, arXiv 2412.07808), as pure functions.

Notation of the paper: ``L_f`` is the forget loss, defined so that *decreasing* it makes the model
worse on the forget set, and ``L_r`` is the retain loss. ``grad_forget`` and ``grad_retain`` are
their gradients over the same ordered list of parameters; ``retain_weight`` is the lambda of
Theorem 4.

Every rule is a linear combination ``a * grad_forget + b * grad_retain``. Its two coefficients
depend only on three inner products and ``retain_weight``, so no projection is ever materialised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .breakdown import NotFiniteError
from .pieces import pieces


@dataclass(frozen=True)
class Gram:
    """Inner products of the two gradients over the trained parameters, accumulated in fp32.

    Attributes:
        forget_forget: ``||grad_forget||^2``.
        forget_retain: ``grad_forget . grad_retain``; negative when the two losses conflict.
        retain_retain: ``||grad_retain||^2``.
    """

    forget_forget: float
    forget_retain: float
    retain_retain: float

    @property
    def conflict(self) -> bool:
        """Whether a descent step on either loss raises the other, to first order."""
        return self.forget_retain < 0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the gradients, in -1..1; 0 when either is zero."""
        scale = math.sqrt(self.forget_forget) * math.sqrt(self.retain_retain)
        return max(-1.0, min(1.0, self.forget_retain / scale)) if scale > 0 else 0.0


def gram(grad_forget: Sequence[Tensor], grad_retain: Sequence[Tensor]) -> Gram:
    """Inner products of two gradients, which are lists of tensors of the same shapes.

    Raises:
        ValueError: the lists differ in length or shapes.
        NotFiniteError: a gradient is not finite.
    """
    if [g.shape for g in grad_forget] != [g.shape for g in grad_retain]:
        raise ValueError("grad_forget and grad_retain must list the same parameters in one order")
    parts = []
    for piece in pieces(grad_forget):
        f, r = piece.flat(grad_forget).float(), piece.flat(grad_retain).float()
        parts.append(torch.stack([f.dot(f), f.dot(r), r.dot(r)]))
    if not parts:
        return Gram(0.0, 0.0, 0.0)
    forget_forget, forget_retain, retain_retain = torch.stack(parts).sum(0).tolist()  # one sync
    if not all(map(math.isfinite, (forget_forget, forget_retain, retain_retain))):
        raise NotFiniteError(
            "training broke down (a gradient is not finite); lower learning_rate, or "
            "choose precision fp32"
        )
    return Gram(forget_forget, forget_retain, retain_retain)


OPPOSITE = 1e-6  # 1 + cosine; below it, fp32 cannot tell gradients from opposite ones

Coefficients = tuple[float, float]
Rule = Callable[[Gram, float], Coefficients]


def restricted(products: Gram, retain_weight: float) -> Coefficients:
    """Theorem 4: the direction ``delta_f + lambda * delta_r``.

    With a conflict, ``delta_f = g_f - (g_f.g_r / |g_r|^2) g_r`` and
    ``delta_r = g_r - (g_f.g_r / |g_f|^2) g_f``: each gradient loses the part that would raise the
    other loss, so a step against the sum raises neither loss to first order. Without a conflict, or
    if a gradient is zero, both stay unchanged. With ``retain_weight=1`` this is PCGrad for two
    losses.

    Returns:
        ``(a, b)`` of the direction ``a * grad_forget + b * grad_retain``.
    """
    # The product of two tiny gradients can be nonzero although a square underflows to zero.
    if not products.conflict or 0 in (products.forget_forget, products.retain_retain):
        return 1.0, retain_weight
    along_retain = products.forget_retain / products.retain_retain
    along_forget = products.forget_retain / products.forget_forget
    return 1.0 - retain_weight * along_forget, retain_weight - along_retain


def plain_sum(products: Gram, retain_weight: float) -> Coefficients:
    """GradDiff (Liu et al. 2022): ``g_f + lambda * g_r``, for any angle between them."""
    return 1.0, retain_weight


def retain_only(products: Gram, retain_weight: float) -> Coefficients:
    """Fine-tuning on the retain set alone; the model may forget the concept by itself."""
    return 0.0, 1.0


def forget_only(products: Gram, retain_weight: float) -> Coefficients:
    """Gradient ascent: the forget loss alone."""
    return 1.0, 0.0


def dual_cone(products: Gram, retain_weight: float) -> Coefficients:
    """The direction nearest to ``g_f + lambda * g_r`` that raises neither loss (Lopez-Paz and
    Ranzato 2017, for two losses). Unlike ``restricted``, it corrects the sum instead of each
    gradient, and leaves it unchanged more often."""
    a, b = 1.0, retain_weight
    along_forget = a * products.forget_forget + b * products.forget_retain
    along_retain = a * products.forget_retain + b * products.retain_retain
    more_forget, more_retain = into_cone(products, -along_forget, -along_retain)
    return a + more_forget, b + more_retain


def nash(products: Gram, retain_weight: float) -> Coefficients:
    """MUNBa (Wu and Harandi 2024): the Nash bargaining solution for two losses, in closed form.

    The direction ``d = x g_f + y g_r`` that maximises ``log(g_f.d) + lambda log(g_r.d)`` over a
    ball satisfies ``x (g_f.d) = 1`` and ``y (g_r.d) = lambda``. It depends on the directions of the
    gradients, not on their lengths.

    Returns:
        ``(x, y)``; zeros if the gradients are opposite, as then no step suits both.
    """
    if 0 in (products.forget_forget, products.retain_retain):
        return 1.0, retain_weight
    cosine = products.cosine
    if cosine < -1 + OPPOSITE:
        return 0.0, 0.0
    # With u = x |g_f| and v = y |g_r|: u^2 = 1 - cosine p and v^2 = lambda - cosine p, where the
    # product p = u v is a root of a quadratic; each branch uses the form without cancellation.
    both = cosine * (1 + retain_weight)
    root = math.sqrt(both**2 + 4 * retain_weight * (1 - cosine**2))
    if both > 0:
        product = 2 * retain_weight / (both + root)
    else:
        product = (root - both) / (2 * (1 - cosine**2))
    forget = math.sqrt(max(0.0, 1 - cosine * product))
    retain = math.sqrt(max(0.0, retain_weight - cosine * product))
    return forget / math.sqrt(products.forget_forget), retain / math.sqrt(products.retain_retain)


def limited(products: Gram, excess: float) -> Coefficients:
    """After Feng et al. 2024 (epsilon-constrained unlearning): ``g_f + lambda g_r`` with the
    smallest ``lambda >= 0`` for which the retain loss falls at least at the rate ``psi``:
    ``lambda = max(0, (psi - g_f.g_r) / |g_r|^2)``, the nearest such direction to ``g_f``.

    Their control function could not be read. Here ``psi = excess |g_f| |g_r|``, which does not
    depend on the size of either gradient: far below the limit (-1) forgetting is free, at the
    limit (0) the retain loss must not rise, and twice above it (1) the step repairs it.

    Args:
        excess: see ``excess_over``.
    """
    if 0 in (products.forget_forget, products.retain_retain):
        return 1.0, 0.0
    sizes = math.sqrt(products.forget_forget) * math.sqrt(products.retain_retain)
    needed = excess * sizes - products.forget_retain
    return 1.0, max(0.0, needed / products.retain_retain)


def excess_over(limit: float, loss: float) -> float:
    """By how much a loss exceeds its limit, as a share of the limit, at most ``LARGEST_EXCESS``."""
    if loss >= (1 + LARGEST_EXCESS) * limit:  # also for a limit of 0
        return LARGEST_EXCESS
    return loss / limit - 1


LIMITED = "epsilon-constrained"
"""The only rule that has the excess of the retain loss in place of ``retain_weight``."""
LARGEST_EXCESS = 10.0
RULES: dict[str, Rule] = {
    "restricted gradient": restricted,
    "GradDiff": plain_sum,
    "dual cone": dual_cone,
    "Nash (MUNBa)": nash,
    "retain only": retain_only,
    "forget only": forget_only,
    LIMITED: limited,
}


def into_cone(products: Gram, rise_forget: float, rise_retain: float) -> Coefficients:
    """The shortest correction of a step such that it raises neither loss.

    Args:
        rise_forget, rise_retain: ``g_f.u`` and ``g_r.u`` of the step ``u``: its change of each
            loss, to first order.

    Returns:
        ``(a, b)``, both nonnegative, such that ``u - a g_f - b g_r`` raises neither loss: the
        projection of ``u`` on the cone of these steps. It follows from the optimality conditions;
        with at most two active constraints, every combination can be tried.
    """
    f, r, c = products.forget_forget, products.retain_retain, products.forget_retain
    if rise_forget <= 0 and rise_retain <= 0:
        return 0.0, 0.0
    # One active constraint, if the other one then holds as well.
    if rise_forget > 0 and f > 0 and rise_retain - rise_forget / f * c <= 0:
        return rise_forget / f, 0.0
    if rise_retain > 0 and r > 0 and rise_forget - rise_retain / r * c <= 0:
        return 0.0, rise_retain / r
    area = f * r - c * c
    if area <= 1e-6 * f * r:  # parallel gradients: removing the larger rise removes both
        if f == 0 or (r > 0 and rise_retain / math.sqrt(r) > rise_forget / math.sqrt(f)):
            return 0.0, max(0.0, rise_retain) / r if r > 0 else 0.0
        return max(0.0, rise_forget) / f, 0.0
    return (
        max(0.0, rise_forget * r - rise_retain * c) / area,
        max(0.0, rise_retain * f - rise_forget * c) / area,
    )


def combine(grad_forget: Tensor, grad_retain: Tensor, coefficients: Coefficients) -> Tensor:
    """``a * grad_forget + b * grad_retain`` for one tensor. Called piece by piece, so that no
    further gradient of the whole model is stored."""
    a, b = coefficients
    return (a * grad_forget).add_(grad_retain, alpha=b)
