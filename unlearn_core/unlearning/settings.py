"""Settings, checked at construction: a run that cannot work is refused before any work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..foundation.checks import (
    LARGEST_SEED,
    check_choice,
    check_number,
    check_positive,
    check_whole,
    require,
)
from .objectives import OBJECTIVES, RETAIN_OBJECTIVES, Strengths
from .optimizer import SCHEDULES
from .rules import RULES
from .scopes import LORA, SCOPES

UCE = "UCE (closed form)"
METHODS: tuple[str, ...] = (*RULES, UCE)
"""Ways to unlearn: a step by one of the rules, again and again, or an edit in closed form."""

MOST_STEPS = 100_000


@dataclass(frozen=True)
class UnlearnSettings:
    """One unlearning run.

    Attributes:
        method: how the two gradients are combined, or what is done instead; one of ``METHODS``.
        objective: what the forget loss asks for, a name in ``OBJECTIVES``.
        retain_objective: what the retain loss holds on to, a name in ``RETAIN_OBJECTIVES``.
        scope: which parameters are trained, a name in ``SCOPES``.
        lora_rank: rank of the layers that scope ``lora`` trains.
        lora_alpha: their strength; what they add is multiplied by ``lora_alpha / lora_rank``.
        steps: optimizer steps.
        learning_rate: of Adam, at its highest.
        schedule: how it runs over the steps, a name in ``SCHEDULES``.
        batch_size: pictures of each set per step.
        retain_batch_factor: the retain batch is this many times as large, for a calmer gradient;
            0 takes the whole retain set at every step, as the paper's RGD does.
        paired: the retain batch begins with the parallels of the forget batch, under the same
            noise and timesteps; not where it is the whole set. Where more than parallels is to be
            kept, such as pictures of one's own, another batch from all of it comes after them.
        stratified_timesteps: a batch's timesteps are spread evenly over the schedule, one in each
            of as many strata, instead of each at random: the same expectation, less variance.
        retain_ema: decay of a moving average of the retain gradient over the steps, below 1;
            0 switches it off.
        restrict_step: whether the optimizer's step is restricted too, after Adam has bent it.
        weight_decay: of AdamW.
        empty_share: share of the retain rows whose prompt is left empty, as in the training for
            classifier-free guidance: what guidance measures from is kept, too. 0 leaves it out.
        saliency: share of the trained weights that may change, those that matter most to the
            concept; SalUn takes half.
        warm_start: whether the run begins from UCE's edit of the keys and values of cross-attention
            instead of the model as it is; where the scope trains none, or a saliency below 1 says
            that few weights may change, there is no such edit.
        warm_start_weight: how much the prompts that are to stay as they are count in that edit;
            more keeps them nearer to where they were.
        retain_weight: lambda of Theorem 4.
        truncation: alpha; squared errors above it no longer count in ``ascent``, and a batch whose
            mean is above it in ``ascent, stop above``.
        npo_beta: how fast ``NPO`` fades; near 0 it is plain ascent.
        negative_guidance: eta; how far ``redirect`` aims beyond the parallel prompt, and
            ``erase`` beyond the empty one.
        seed: of batches, noise and timesteps.
    """

    method: str = "restricted gradient"
    objective: str = "redirect"
    retain_objective: str = "distill"
    scope: str = "xattn"
    lora_rank: int = 16
    lora_alpha: float = 16.0
    steps: int = 100
    learning_rate: float = 3e-4
    schedule: str = "linear"
    batch_size: int = 16
    retain_batch_factor: int = 1
    paired: bool = True
    stratified_timesteps: bool = True
    retain_ema: float = 0.0
    restrict_step: bool = True
    weight_decay: float = 0.0
    saliency: float = 1.0
    warm_start: bool = True
    warm_start_weight: float = 4.0
    empty_share: float = 0.0
    retain_weight: float = 1.0
    truncation: float = 1.0
    negative_guidance: float = 0.25
    npo_beta: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for field, known in (
            ("method", METHODS),
            ("objective", OBJECTIVES),
            ("retain_objective", RETAIN_OBJECTIVES),
            ("scope", SCOPES),
            ("schedule", SCHEDULES),
        ):
            check_choice(field, getattr(self, field), known)
        check_whole("steps", self.steps, 1, MOST_STEPS)
        for field in ("batch_size", "lora_rank"):
            check_whole(field, getattr(self, field), 1)
        check_whole("retain_batch_factor", self.retain_batch_factor, 0)
        check_whole("seed", self.seed, 0, LARGEST_SEED)
        for field in ("learning_rate", "truncation", "lora_alpha", "npo_beta"):
            check_positive(field, getattr(self, field))
        require(self.learning_rate <= 1, "learning_rate", self.learning_rate, "1 or less")
        for field in ("retain_weight", "warm_start_weight", "negative_guidance", "weight_decay"):
            value = getattr(self, field)
            require(0 <= check_number(field, value) < math.inf, field, value, "0 or more")
        for field in ("retain_ema", "empty_share", "saliency"):
            check_number(field, getattr(self, field))
        require(0 <= self.retain_ema < 1, "retain_ema", self.retain_ema, "0 or more, below 1")
        require(0 <= self.empty_share < 1, "empty_share", self.empty_share, "0 or more, below 1")
        require(0 < self.saliency <= 1, "saliency", self.saliency, "above 0, at most 1")
        if self.saliency < 1 and (self.weight_decay or self.scope == LORA):
            raise ValueError(
                f"saliency must be 1 with weight_decay, which changes every weight, and with scope "
                f"{LORA!r}, whose layers start at zero, got {self.saliency!r}"
            )
        for field in ("paired", "stratified_timesteps", "restrict_step", "warm_start"):
            value = getattr(self, field)
            require(isinstance(value, bool), field, value, "true or false")

    @property
    def strengths(self) -> Strengths:
        """What the forget objectives are given."""
        return Strengths(self.truncation, self.negative_guidance, self.npo_beta)
