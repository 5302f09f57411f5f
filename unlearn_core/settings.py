"""Settings, checked at construction: a run that cannot work is refused before any work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .objectives import OBJECTIVES
from .parameters import SCOPES
from .restricted_gradient import RULES


def _require(condition: bool, field: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{field} must be {rule}, got {value!r}")


def _positive(field: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, field, value, "positive")


@dataclass(frozen=True)
class GenerationSettings:
    """How the model draws pictures.

    Attributes:
        steps: denoising steps of the sampler.
        guidance_scale: classifier-free guidance; 1 switches it off.
        seed: first seed; picture i uses ``seed + i``.
        batch_size: pictures drawn at once.
    """

    steps: int = 12
    guidance_scale: float = 4.0
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "steps", self.steps, "1 or more")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _positive("guidance_scale", self.guidance_scale)


@dataclass(frozen=True)
class UnlearnSettings:
    """One unlearning run.

    Attributes:
        method: how the two gradients are combined, a name in ``RULES``.
        objective: what the forget loss asks for, a name in ``OBJECTIVES``.
        scope: which parameters are trained, a name in ``SCOPES``.
        steps: optimizer steps.
        learning_rate: of Adam, after a short warm-up.
        batch_size: pictures of each set per step.
        retain_batch_factor: the retain batch is this many times as large, for a calmer gradient.
        retain_weight: lambda of Theorem 4.
        truncation: alpha; squared errors above it no longer count in ``ascent``.
        seed: of batches, noise and timesteps.
    """

    method: str = "restricted gradient"
    objective: str = "ascent"
    scope: str = "full"
    steps: int = 80
    learning_rate: float = 5e-5
    batch_size: int = 16
    retain_batch_factor: int = 1
    retain_weight: float = 5.0
    truncation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field, known in (("method", RULES), ("objective", OBJECTIVES), ("scope", SCOPES)):
            value = getattr(self, field)
            _require(value in known, field, value, f"one of {', '.join(known)}")
        for field in ("steps", "batch_size", "retain_batch_factor"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "1 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        for field in ("learning_rate", "truncation"):
            _positive(field, getattr(self, field))
        weight = self.retain_weight
        _require(math.isfinite(weight) and weight >= 0, "retain_weight", weight, "0 or more")


@dataclass(frozen=True)
class EvaluationSettings:
    """How many pictures an evaluation draws of each kind of prompt, and how.

    Attributes:
        pictures: pictures of each of forget, retain train and retain test prompts.
        generation: the sampler; its seeds are apart from those that unlearning trained on.
    """

    pictures: int = 64
    generation: GenerationSettings = GenerationSettings(seed=1_000_000)

    def __post_init__(self) -> None:
        _require(self.pictures >= 1, "pictures", self.pictures, "1 or more")
