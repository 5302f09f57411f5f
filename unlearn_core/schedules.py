"""How the learning rate runs over the steps: factors of the setting, 0..1."""

from __future__ import annotations

from collections.abc import Callable

WARM_UP = 0.1  # share of the steps over which the rate grows from zero


def constant(step: int, steps: int) -> float:
    """A short warm-up, in which Adam learns how large gradients are, then level."""
    return min(1.0, step / max(1.0, WARM_UP * steps))


def linear(step: int, steps: int) -> float:
    """After the warm-up down to zero: the last steps settle what the first have stirred up."""
    return constant(step, steps) * (1 - (step - 1) / steps)


SCHEDULES: dict[str, Callable[[int, int], float]] = {"linear": linear, "constant": constant}
