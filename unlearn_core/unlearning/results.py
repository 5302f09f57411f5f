"""What a run of unlearning returns: a report of each step and the new model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .settings import UnlearnSettings


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: 1 for the first.
        forget_loss: of the forget batch before the step, decreasing as the model forgets.
        retain_loss: of the retain batch before the step.
        cosine: of the two gradients, -1..1; negative is a conflict.
        conflict: whether the gradients were in conflict.
        grad_forget_norm, grad_retain_norm: Euclidean norms over the trained parameters.
        forget_change, retain_change: of the two losses by the step made, to first order; with
            ``retain_ema``, along the smoothed retain gradient.
        seconds: wall time of the step.
    """

    step: int
    forget_loss: float
    retain_loss: float
    cosine: float
    conflict: bool
    grad_forget_norm: float
    grad_retain_norm: float
    forget_change: float
    retain_change: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """By name; None for what is not finite, of which JSON has nothing."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class UnlearnedModel:
    """The result of a run, complete or cut short, with what is needed to judge and save it."""

    model: ModelHandle
    base: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    reports: tuple[StepReport, ...]

    def get_ram_usage(self) -> int:
        """Bytes of what it adds to its base; the name is ComfyUI's, whose cache of outputs asks."""
        return sum(tensor.nbytes for tensor in self.model.own_tensors())
