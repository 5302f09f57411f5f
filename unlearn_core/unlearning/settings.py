"""Settings of an unlearning run. They are checked at construction, so that invalid settings are
refused before any work starts."""

from __future__ import annotations

from dataclasses import dataclass

from ..foundation.checks import LARGEST_SEED
from ..foundation.fields import Range, check_fields, choice, flag, number, whole
from ..models.layers import LORA, SCOPES
from .objectives import OBJECTIVES, RETAIN_OBJECTIVES, Strengths
from .optimizer import SCHEDULES
from .rules import RULES

UCE = "UCE (closed form)"
METHODS: tuple[str, ...] = (*RULES, UCE)
"""Training steps by one of the rules, or one closed-form edit."""

TO_THE_END, LAST_TOKEN = UCE_TOKENS = ("to the end", "last token")
"""Tokens that the closed-form edit changes."""

MOST_STEPS = 100_000


@dataclass(frozen=True)
class UnlearnSettings:
    """One unlearning run. Forms show the fields in this order, advanced ones last."""

    objective: str = choice(
        "redirect",
        OBJECTIVES,
        help="How the model forgets (the forget loss). 'redirect': the concept's prompts learn to "
        "draw the replacement; gentle, with clean pictures. 'ascent' (as in the paper), 'ascent, "
        "stop above' and 'NPO': the concept's pictures become unlikely; what appears instead is "
        "left open and is often noise. The second pauses while the error is above 'truncation', "
        "the third fades out. 'relabel': trains the concept's prompts on the replacement's "
        "pictures. 'random label (SalUn)': the concept's prompts learn the current model's "
        "prediction for the replacement's prompts. 'erase (ESD)': moves the concept's bare name "
        "away from itself, towards the empty prompt.",
    )
    scope: str = choice(
        "xattn",
        SCOPES,
        help="The weights that may change. 'xattn': cross-attention only, where the words enter "
        "the picture; needs less memory and affects the rest least. 'noxattn': everything except "
        "cross-attention, the timestep layers and the last layers, as in ESD's first code. "
        "'noxattn-2025': all linear and convolution layers outside cross-attention, as in ESD's "
        "code since 2025. 'full': the whole denoiser; also works for models without words. "
        "'lora': small layers added to the transformer blocks; needs the least memory, and can be "
        "saved as a LoRA without loss.",
    )
    steps: int = whole(
        100,
        least=1,
        most=MOST_STEPS,
        help="Number of training steps. More steps forget more reliably but take longer, and too "
        "many damage the rest of the model.",
    )
    learning_rate: float = number(
        3e-4,
        above=0,
        most=1,
        offered=Range(1e-8, 1.0, 1e-6, precision=1e-8),
        help="Size of each step at its highest. The default suits the demo model; for a full-size "
        "model start with 0.00001, or with 0.0004 for the scope 'lora'. Higher values forget "
        "faster but damage the rest more; too high a value breaks the model.",
    )
    retain_weight: float = number(  # lambda of Theorem 4
        1.0,
        least=0,
        offered=Range(0.0, 100_000.0, 0.1),
        help="How strongly to protect everything else, compared with forgetting. Lower it if the "
        "concept still shows. Raise it, to 5 or even 50, if similar things suffer; forgetting is "
        "then slower. With 0 the model only forgets.",
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="Seed of everything random here. The same seed and settings give the same model; "
        "another seed shows how much of the result is luck.",
    )
    method: str = choice(
        "restricted gradient",
        METHODS,
        help="How each step combines the forget gradient with the retain gradient; to choose a "
        "complete method, use 'recipe'. 'restricted gradient' removes the part of each gradient "
        "that works against the other. 'dual cone' and 'Nash (MUNBa)' combine them in other ways. "
        "'GradDiff' (the plain sum), 'retain only' and 'forget only' are for comparison. 'UCE "
        "(closed form)' needs no training: it takes a second, but is rougher.",
        advanced=True,
    )
    retain_objective: str = choice(
        "distill",
        RETAIN_OBJECTIVES,
        help="How everything else is protected (the retain loss). 'distill': keep drawing "
        "everything else as the original model does; protects best. 'denoise': continue normal "
        "training on everything else, as in the paper.",
        advanced=True,
    )
    negative_guidance: float = number(  # eta
        0.25,
        least=0,
        offered=Range(0.0, 20.0, 0.05),
        help="How far to push away from the concept: 'redirect' aims this far beyond the "
        "replacement, 'erase (ESD)' this far beyond the empty prompt. Higher values forget in "
        "fewer steps but damage the rest more; 0 forgets slowly. Other objectives ignore it.",
        advanced=True,
    )
    truncation: float = number(  # alpha
        1.0,
        above=0,
        offered=Range(0.001, 1000.0, 0.05),
        help="The error up to which 'ascent' and 'ascent, stop above' push the concept away. "
        "Higher values push it further away, and everything else with it. Other objectives ignore "
        "it.",
        advanced=True,
    )
    npo_beta: float = number(
        0.01,
        above=0,
        offered=Range(0.00001, 100.0, 0.001, precision=0.00001),
        help="How soon 'NPO' fades out. Higher values stop pushing sooner; near 0 it behaves like "
        "'ascent'. Other objectives ignore it.",
        advanced=True,
    )
    warm_start: bool = flag(
        True,
        help="Start from UCE's closed-form edit of the weights that read the prompt, instead of "
        "from the unchanged model. On forgets faster and more reliably. Off follows the paper: "
        "teaching the model a new word then restores less of the concept, and the demo model "
        "needs a learning_rate of 0.001. No effect with the scopes 'lora' and 'noxattn', or with "
        "'saliency' below 1.",
        advanced=True,
    )
    warm_start_weight: float = number(
        4.0,
        least=0,
        offered=Range(0.0, 1000.0, 0.5),
        help="Weight of the preserved prompts in the edit of 'warm_start'. Higher values keep "
        "them closer to the original; too high a value leaves more of the concept to the training "
        "steps.",
        advanced=True,
    )
    uce_tokens: str = choice(
        TO_THE_END,
        UCE_TOKENS,
        help="The words that the closed-form edit changes, for 'UCE' and 'warm_start'. 'to the "
        "end': the last word of the concept and everything after it in the prompt, as in UCE's "
        "first code. 'last token': only the last word of the concept, as in UCE's code since "
        "2025.",
        advanced=True,
    )
    batch_size: int = whole(
        16,
        least=1,
        offered=1024,
        help="Number of forget pictures and of retain pictures per step; also how many pictures "
        "are drawn at once before training. Larger batches give steadier steps but need more "
        "memory and time.",
        advanced=True,
    )
    retain_batch_factor: int = whole(
        1,
        least=0,
        offered=64,
        help="Retain pictures per step, as a multiple of 'batch_size'. Higher values protect more "
        "precisely but slow down each step. 0 uses the whole retain set in every step, as the "
        "paper does for its best results; this is the slowest.",
        advanced=True,
    )
    # If the retain set contains more than the parallels (the user's own pictures, for example), a
    # second batch, drawn from the whole retain set, follows the parallels.
    paired: bool = flag(
        True,
        help="Use each prompt and its counterpart without the concept in the same step, with the "
        "same noise. On compares like with like; off sees a greater variety of pictures. No "
        "effect if each step uses the whole retain set (retain_batch_factor 0) or only pictures "
        "of your own.",
        advanced=True,
    )
    diversified: bool = flag(
        True,
        help="Learn from the pictures of all prompts. Off learns from the same number of pictures "
        "of only the first pair of prompts, as the paper's 'RG' does for comparison; the rest of "
        "the model then suffers more.",
        advanced=True,
    )
    stratified_timesteps: bool = flag(
        True,
        help="Spread the pictures of a step evenly over all noise levels, for steadier steps. Off "
        "draws each noise level at random.",
        advanced=True,
    )
    retain_ema: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.999, 0.05),
        help="How much of the retain gradient is carried over from step to step (moving average); "
        "0 is off. 0.9 averages over about ten steps: steadier, but needs additional memory of "
        "the size of the trained weights.",
        advanced=True,
    )
    empty_share: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.9, 0.05),
        help="Share of the retain pictures that is trained with an empty prompt. Guidance "
        "compares every picture with the empty prompt's. 'ascent' destroys the empty prompt's "
        "pictures unless about 0.1 protects them; 'redirect' hardly affects them.",
        advanced=True,
    )
    schedule: str = choice(
        "linear",
        SCHEDULES,
        help="How the learning rate changes over the steps. 'linear': decreases to zero, so that "
        "the last steps smooth out the disturbance of the first. 'constant': stays the same, as "
        "in the paper.",
        advanced=True,
    )
    restrict_step: bool = flag(
        True,
        help="Restrict each step a second time, after the optimizer. Its momentum changes the "
        "direction; on then removes whatever would harm either goal (with retain_ema, judged by "
        "the averaged gradient). Costs little time.",
        advanced=True,
    )
    weight_decay: float = number(
        0.0,
        least=0,
        offered=Range(0.0, 1.0, 0.001),
        help="Pulls the trained weights towards zero (AdamW). Higher values rarely help a model "
        "that is already trained.",
        advanced=True,
    )
    saliency: float = number(
        1.0,
        above=0,
        most=1,
        offered=Range(0.01, 1.0, 0.05),
        help="Share of the weights that may change; 1 is all of them. 0.5 trains the half that "
        "matters most to the concept, as SalUn does. Below 1 there is no warm start.",
        advanced=True,
    )
    lora_rank: int = whole(
        16,
        least=1,
        offered=1024,
        help="Rank of the layers that the scope 'lora' trains. Higher ranks can change more but "
        "give a larger file. Other scopes ignore it.",
        advanced=True,
    )
    lora_alpha: float = number(
        16.0,
        above=0,
        offered=Range(0.01, 1024.0, 0.5),
        help="Strength of those layers: their output is multiplied by lora_alpha / lora_rank. "
        "Usually equal to the rank, or half of it.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.saliency < 1 and (self.weight_decay or self.scope == LORA):
            raise ValueError(
                f"saliency must be 1 with weight_decay, which changes every weight, and with scope "
                f"{LORA!r}, whose layers start at zero, got {self.saliency!r}"
            )

    @property
    def strengths(self) -> Strengths:
        """The strengths of the forget objectives."""
        return Strengths(self.truncation, self.negative_guidance, self.npo_beta)
