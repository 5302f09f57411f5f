"""The result of an unlearning run: a report of each step and the new model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..foundation.cost import NO_COST, Cost
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .alarms import Alarm
from .settings import UnlearnSettings


@dataclass(frozen=True)
class StepReport:
    """Losses and gradients of one step.

    Attributes:
        step: its number, from 1.
        forget_loss: loss on the forget batch before the step; decreases as the model forgets.
        retain_loss: loss on the retain batch before the step.
        cosine: cosine between the two gradients, -1..1; negative in a conflict.
        conflict: whether the gradients are in conflict.
        grad_forget_norm, grad_retain_norm: Euclidean norms over the trained parameters.
        forget_change, retain_change: change of the two losses by the step, to first order; with
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
        """The values by name; None for values that are not finite, which JSON cannot represent."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class UnlearnedModel:
    """The result of a complete or interrupted run, with everything needed to evaluate and save it.

    Attributes:
        resumed_at: the step after which the run was resumed last; None if it was not interrupted.
    """

    model: ModelHandle
    base: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    reports: tuple[StepReport, ...]
    cost: Cost = NO_COST
    alarms: tuple[Alarm, ...] = ()
    resumed_at: int | None = None

    def get_ram_usage(self) -> int:
        """Bytes in addition to the base model. ComfyUI's output cache calls this method by name."""
        return sum(tensor.nbytes for tensor in self.model.own_tensors())
