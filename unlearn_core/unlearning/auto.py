"""The settings that are chosen for the model: ``"auto"``, and 0 for numbers.

The numbers come from the benchmark on EmojiCanvas. The learning rate carries over to other models:
Adam changes every weight by about this rate, whatever the scale of the gradient, so the rate is
proportional to the typical size of the weights. This size follows from the widths of the layers,
because networks keep the scale of their activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..models.layers import AUTO, FULL, LOW_RANK
from ..models.protocol import ModelHandle
from .objectives import REDIRECT, REMOVE_LOOK
from .scopes import parameter_names
from .settings import MOST_PICTURE_PAIRS, NORMAL, QUICK, THOROUGH, UnlearnSettings

REFERENCE_SIZE = 0.056
"""``typical_size`` of EmojiCanvas's cross-attention, where the rates were measured."""
FEWEST_SAMPLING_STEPS = 4


@dataclass(frozen=True)
class Numbers:
    """The numbers of a method.

    Attributes:
        steps, batch_size, picture_pairs: as in ``UnlearnSettings``.
        learning_rate: for weights of ``REFERENCE_SIZE``.
    """

    steps: int
    batch_size: int
    picture_pairs: int
    learning_rate: float


WARM = {
    QUICK: Numbers(steps=10, batch_size=4, picture_pairs=8, learning_rate=1e-3),
    NORMAL: Numbers(steps=20, batch_size=8, picture_pairs=23, learning_rate=1e-3),
    THOROUGH: Numbers(
        steps=100, batch_size=16, picture_pairs=MOST_PICTURE_PAIRS, learning_rate=3e-4
    ),
}
"""``redirect`` after a warm start, by effort: the closed-form edit has done most of the work, and
its prompts need no pictures."""
WARM_LOW_RANK = {
    QUICK: Numbers(steps=10, batch_size=4, picture_pairs=8, learning_rate=1.5e-3),
    NORMAL: Numbers(steps=20, batch_size=8, picture_pairs=23, learning_rate=1.5e-3),
    THOROUGH: Numbers(steps=100, batch_size=16, picture_pairs=120, learning_rate=1e-3),
}
"""``redirect`` with low-rank layers after a warm start."""
LOW_RANK_LAYERS = {
    QUICK: Numbers(steps=20, batch_size=8, picture_pairs=16, learning_rate=3e-3),
    NORMAL: Numbers(steps=40, batch_size=8, picture_pairs=32, learning_rate=3e-3),
    THOROUGH: Numbers(steps=100, batch_size=16, picture_pairs=120, learning_rate=3e-3),
}
"""``redirect`` with low-rank layers that begin without effect."""
HARDENED = {
    QUICK: Numbers(steps=30, batch_size=8, picture_pairs=23, learning_rate=5.3e-4),
    NORMAL: Numbers(steps=80, batch_size=8, picture_pairs=23, learning_rate=5.3e-4),
    THOROUGH: Numbers(steps=200, batch_size=16, picture_pairs=120, learning_rate=5.3e-4),
}
"""``harden``, all weights."""
OF_LOOKS = {
    QUICK: Numbers(steps=30, batch_size=8, picture_pairs=1, learning_rate=1.8e-4),
    NORMAL: Numbers(steps=60, batch_size=8, picture_pairs=1, learning_rate=1.8e-4),
    THOROUGH: Numbers(steps=200, batch_size=16, picture_pairs=1, learning_rate=1.8e-4),
}
"""``remove look``, measured with the scope ``full``; no pictures are drawn for it."""
LOW_RANK_RATE = 14.0
"""Factor of the learning rate of ``remove look`` for low-rank layers."""
OTHERS = {
    QUICK: Numbers(steps=50, batch_size=8, picture_pairs=60, learning_rate=1e-3),
    NORMAL: Numbers(steps=100, batch_size=16, picture_pairs=MOST_PICTURE_PAIRS, learning_rate=1e-3),
    THOROUGH: Numbers(
        steps=200, batch_size=16, picture_pairs=MOST_PICTURE_PAIRS, learning_rate=1e-3
    ),
}
RATES = {"NPO": 3.0, "forget only": 0.1}
"""Objective or method -> factor of its learning rate; the result of the benchmark's search."""
SAMPLING_SHARES = {QUICK: 1 / 3, NORMAL: 1 / 2, THOROUGH: 1.0}
"""Effort -> sampling steps of a training picture, as a share of those of a picture to look at."""


def resolved(
    settings: UnlearnSettings, model: ModelHandle, sampling_steps: int = 12
) -> UnlearnSettings:
    """The settings with the model's own values in place of ``"auto"`` and 0.

    Args:
        sampling_steps: of the pictures to look at.
    """
    scope = _scope(settings, model) if settings.scope == AUTO else settings.scope
    numbers = _numbers(settings, model, scope)
    return replace(
        settings,
        scope=scope,
        steps=settings.steps or numbers.steps,
        batch_size=settings.batch_size or numbers.batch_size,
        picture_pairs=settings.picture_pairs or numbers.picture_pairs,
        picture_steps=settings.picture_steps
        or min(
            sampling_steps,
            max(FEWEST_SAMPLING_STEPS, int(sampling_steps * SAMPLING_SHARES[settings.effort])),
        ),
        learning_rate=settings.learning_rate or _rate(settings, model, scope, numbers),
    )


def typical_size(model: ModelHandle, scope: str) -> float:
    """Root mean square of the weights in a scope as they are initialised: uniform within
    ``1 / sqrt(inputs)`` (He et al. 2015), whose variance is ``1 / (3 inputs)``."""
    weights = dict(model.named_parameters())
    shapes = [weights[name].shape for name in parameter_names(model, scope)]
    matrices = [shape for shape in shapes if len(shape) > 1]
    variance = sum(shape[0] / 3 for shape in matrices)  # numel / (3 inputs)
    return math.sqrt(variance / sum(math.prod(shape) for shape in matrices))


def _scope(settings: UnlearnSettings, model: ModelHandle) -> str:
    return FULL if settings.harden and model.parameters_in(FULL) else model.default_scope


def _numbers(settings: UnlearnSettings, model: ModelHandle, scope: str) -> Numbers:
    return _of_kind(settings, model, scope)[settings.effort]


def _of_kind(settings: UnlearnSettings, model: ModelHandle, scope: str) -> dict[str, Numbers]:
    if settings.harden:
        return HARDENED
    if settings.objective == REMOVE_LOOK:
        return OF_LOOKS
    if settings.objective != REDIRECT:
        return OTHERS
    edited = set(model.text_projections()) & set(parameter_names(model, scope))
    warm = settings.warm_start and settings.saliency == 1 and edited
    if scope in LOW_RANK:
        return WARM_LOW_RANK if warm else LOW_RANK_LAYERS
    return WARM if warm else OTHERS


def _rate(settings: UnlearnSettings, model: ModelHandle, scope: str, numbers: Numbers) -> float:
    factor = RATES.get(settings.objective, 1.0) * RATES.get(settings.method, 1.0)
    if settings.objective == REMOVE_LOOK and scope in LOW_RANK:
        factor *= LOW_RANK_RATE
    rate = numbers.learning_rate * factor * typical_size(model, scope) / REFERENCE_SIZE
    return float(f"{rate:.1e}")  # two digits: it is shown
