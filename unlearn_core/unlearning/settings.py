"""Settings of an unlearning run. They are checked at construction, so that invalid settings are
refused before any work starts."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataset.settings import LARGEST_SAMPLING
from ..foundation.checks import LARGEST_SEED
from ..foundation.fields import Range, check_fields, choice, flag, number, whole
from ..models.layers import AUTO, LORA, LORA_SELF_ATTENTION, LOW_RANK, SCOPES
from .objectives import (
    OBJECTIVES,
    PRIOR,
    REDIRECT,
    RELATED_OBJECTIVES,
    RETAIN_OBJECTIVES,
    ForgetObjective,
    Strengths,
    hardened,
)
from .optimizer import SCHEDULES
from .rules import LIMITED, RULES

UCE, SPEED, CASE = EDITS = ("UCE (closed form)", "SPEED (closed form)", "CASE (closed form)")
METHODS: tuple[str, ...] = (*RULES, *EDITS)
"""Training steps by one of the rules, or one closed-form edit."""
RELATED_METHODS = (SPEED, CASE, LIMITED)
"""Related works, for comparison in the benchmark; forms do not offer them."""

TO_THE_END, LAST_TOKEN = UCE_TOKENS = ("to the end", "last token")
"""Tokens that the closed-form edit changes."""

MOST_STEPS = 100_000
MOST_PICTURE_PAIRS = 10_000
QUICK, NORMAL, THOROUGH = EFFORTS = ("quick", "normal", "thorough")
AUTO_NUMBER = 0
"""The value of a number that is chosen for the model; see ``auto``."""


@dataclass(frozen=True)
class UnlearnSettings:
    """One unlearning run. Forms show the fields in this order, advanced ones last."""

    objective: str = choice(
        REDIRECT,
        OBJECTIVES,
        also=RELATED_OBJECTIVES,
        help="How the model forgets (the forget loss). 'redirect': the concept's prompts learn to "
        "draw the replacement; gentle, with clean pictures. 'ascent' (the paper's): the model "
        "unlearns how to draw the concept's pictures. What it draws instead is left open, and is "
        "often noise. 'ascent, stop above': the same, with pauses while the error is above "
        "'truncation'. 'NPO': the same, but it fades out. 'relabel': trains the concept's prompts "
        "on the replacement's pictures. 'remove look': for what no word names, such as a "
        "watermark; choose the recipe 'look'. 'random label (SalUn)': the concept's prompts learn "
        "the current model's prediction for the replacement's prompts. 'erase (ESD)': the "
        "concept's name alone, without the rest of a prompt, is moved away from the concept and "
        "towards an empty prompt.",
        advanced=True,
    )
    scope: str = choice(
        AUTO,
        SCOPES,
        also=[LORA_SELF_ATTENTION],
        help="The part of the model that may change. 'auto' chooses it for your model. 'xattn': "
        "only the cross-attention, where the prompt enters the picture (Stable Diffusion 1, 2 and "
        "XL). 'text path': only the weights that are used for words and never for pictures. "
        "'attention': all attention. 'full': the whole denoiser; it also works for models without "
        "text prompts. 'noxattn' and 'noxattn-2025': what ESD's first and later code train. The "
        "scopes with 'lora' add small layers and leave the weights as they are. They need the "
        "least memory, and the result can be saved as a LoRA without loss. 'lora' alone adds them "
        "to all linear layers of the transformer blocks, 'lora, cross-attention', 'lora, text "
        "path' and 'lora, attention' only to that part.",
        advanced=True,
    )
    effort: str = choice(
        NORMAL,
        EFFORTS,
        help="How much time the values that are chosen automatically may take. 'quick': a quarter "
        "of 'normal', for a first look. 'thorough': 13 times 'normal'; on the demo model it is not "
        "better. Values that you set yourself stay as they are.",
    )
    steps: int = whole(
        AUTO_NUMBER,
        least=0,
        most=MOST_STEPS,
        help="Number of training steps; 0 chooses it for the method. With more steps the model "
        "forgets more reliably, but training takes longer. Too many steps damage the rest of the "
        "model.",
        advanced=True,
    )
    learning_rate: float = number(
        float(AUTO_NUMBER),
        least=0,
        most=1,
        offered=Range(0.0, 1.0, 1e-6, precision=1e-8),
        help="Size of the training steps; 0 chooses it for your model, from the size of its "
        "weights. 'schedule' can reduce it during the run. With higher values the model forgets "
        "faster, but the rest is damaged more. Too high a value breaks the model.",
        advanced=True,
    )
    retain_weight: float = number(  # lambda of Theorem 4
        1.0,
        least=0,
        offered=Range(0.0, 100_000.0, 0.1),
        help="How strongly to protect everything else, compared with forgetting. Lower it if the "
        "concept still shows. Raise it to 5 or even 50 if similar things suffer; the model then "
        "forgets more slowly. With 0 nothing is protected.",
    )
    harden: bool = flag(
        False,
        help="Make the concept harder to bring back. Off: the concept's words lose its pictures, "
        "but training on a few pictures soon brings it back. On: the model also loses the "
        "pictures, whatever the prompt. It works for objects, but not reliably for styles. With "
        "the scope 'auto' all weights of the denoiser change, so the run takes about three times "
        "as long and needs more memory. Other pictures match their prompts less well than without "
        "it. Needs the objective 'redirect', and a scope without 'lora'.",
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="Seed of the training. The same seed and settings give the same model. Try another "
        "seed to see how much of the result is luck.",
    )
    method: str = choice(
        "restricted gradient",
        METHODS,
        also=RELATED_METHODS,
        help="How each step combines its two directions, for forgetting and for protecting (the "
        "forget gradient and the retain gradient). To choose a complete method, use 'recipe'. "
        "'restricted gradient' removes the part of each direction that works against the other. "
        "'dual cone' and 'Nash (MUNBa)' combine them in other ways. 'GradDiff' (the plain sum), "
        "'retain only' and 'forget only' are for comparison. 'UCE (closed form)' is one quick edit "
        "without training. It takes a second, but is rougher.",
        advanced=True,
    )
    retain_objective: str = choice(
        "distill",
        RETAIN_OBJECTIVES,
        also=[PRIOR],
        help="How everything else is protected (the retain loss). 'distill': the model learns to "
        "draw everything else as the original model does. This protects best. 'denoise': normal "
        "training on the pictures of everything else, as in the paper.",
        advanced=True,
    )
    negative_guidance: float = number(  # eta
        0.25,
        least=0,
        offered=Range(0.0, 20.0, 0.05),
        help="How far to push away from the concept. With 'redirect', the target lies this far "
        "beyond the replacement; with 'erase (ESD)', this far beyond the empty prompt. With higher "
        "values the model forgets in fewer steps, but the rest is damaged more. With 0 it forgets "
        "slowly. Other objectives ignore this value.",
        advanced=True,
    )
    truncation: float = number(  # alpha
        1.0,
        above=0,
        offered=Range(0.001, 1000.0, 0.05),
        help="'ascent' and 'ascent, stop above' push the concept away until the error of its "
        "pictures reaches this value. Higher values push it further away, but damage everything "
        "else more. Other objectives ignore this value.",
        advanced=True,
    )
    npo_beta: float = number(
        0.01,
        above=0,
        offered=Range(0.00001, 100.0, 0.001, precision=0.00001),
        help="How soon 'NPO' fades out. Higher values make it fade out sooner; near 0 it behaves "
        "like 'ascent'. Other objectives ignore this value.",
        advanced=True,
    )
    warm_start: bool = flag(
        True,
        help="Begin with one quick edit (UCE) of the weights that read the prompt, then train. On: "
        "the model forgets faster and more reliably. Off: as in the paper. If somebody then trains "
        "a new word for the concept, less of it comes back; but the demo model needs a "
        "learning_rate of 0.001. A scope with 'lora' begins with the largest part of the edit. No "
        "effect with the scopes 'noxattn' and 'noxattn-2025', or with 'saliency' below 1.",
        advanced=True,
    )
    warm_start_weight: float = number(
        2.0,
        least=0,
        offered=Range(0.0, 1000.0, 0.5),
        help="How strongly the quick edit of 'warm_start' protects the prompts without the "
        "concept. Higher values keep their pictures closer to the original. Too high a value "
        "weakens the edit, and the training steps have more left to forget.",
        advanced=True,
    )
    prompt_protection: float = number(
        1.0,
        least=0,
        offered=Range(0.0, 1000.0, 0.5),
        help="How strongly each step protects the prompts without the concept in the weights that "
        "read the prompt. It uses all prompts and needs no pictures, so that few pictures are "
        "enough. Higher values protect more, but the model forgets more slowly. 0 is off. No "
        "effect where 'warm_start' has none.",
        advanced=True,
    )
    uce_tokens: str = choice(
        TO_THE_END,
        UCE_TOKENS,
        help="The words that the quick edit changes, for 'UCE', 'warm_start' and "
        "'prompt_protection'. 'to the end': the last word of the concept and everything after it "
        "in the prompt, as in UCE's first code. 'last token': only the last word of the concept, "
        "as in UCE's code since 2025. No effect without these.",
        advanced=True,
    )
    batch_size: int = whole(
        AUTO_NUMBER,
        least=0,
        offered=1024,
        help="Number of pictures with the concept per step, and also of pictures without it; 0 "
        "chooses it for the method. Before training, this many pictures are drawn at once. Larger "
        "batches give steadier steps, but need more memory and time.",
        advanced=True,
    )
    picture_pairs: int = whole(
        AUTO_NUMBER,
        least=0,
        most=MOST_PICTURE_PAIRS,
        help="Number of prompt pairs for which pictures are drawn to train on, two for each pair; "
        "0 chooses it for the method. The quick edit of 'warm_start' always uses all prompts, "
        "because it needs no pictures. More pictures take longer, but protect everything else "
        "better.",
        advanced=True,
    )
    picture_steps: int = whole(
        AUTO_NUMBER,
        least=0,
        most=LARGEST_SAMPLING,
        help="Sampling steps for the pictures to train on; 0 is half of those for previews. They "
        "may be rougher than pictures to look at.",
        advanced=True,
    )
    retain_batch_factor: int = whole(
        1,
        least=0,
        offered=64,
        help="Number of pictures without the concept per step (retain pictures), as a multiple of "
        "'batch_size'. Higher values protect more precisely, but each step takes longer. With 0 "
        "every step uses all retain pictures, as the paper does for its best results. This is the "
        "slowest.",
        advanced=True,
    )
    # If the retain set contains more than the parallels (the user's own pictures, for example), a
    # second batch, drawn from the whole retain set, follows the parallels.
    paired: bool = flag(
        True,
        help="Use both prompts of a pair in the same step, with the same noise. On: each picture "
        "is compared with its counterpart. Off: a step sees more varied pictures. No effect if "
        "'retain_batch_factor' is 0, or if all pictures are your own.",
        advanced=True,
    )
    diversified: bool = flag(
        True,
        help="Use all prompts for the training pictures. Off: the same number of pictures is drawn "
        "from only the first pair of prompts, as in the paper's 'RG', for comparison. The rest of "
        "the model then suffers more.",
        advanced=True,
    )
    stratified_timesteps: bool = flag(
        True,
        help="Spread the pictures of a step evenly over all noise levels, for steadier steps. Off: "
        "each noise level is random.",
        advanced=True,
    )
    retain_ema: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.999, 0.05),
        help="How much of the retain gradient is carried over from step to step (moving average); "
        "0 is off. 0.9 averages over about ten steps. This makes the steps steadier, but needs as "
        "much additional memory as the trained weights.",
        advanced=True,
    )
    empty_share: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.9, 0.05),
        help="Share of the retain pictures that are trained with an empty prompt. Sampling with "
        "guidance (CFG) also uses the empty prompt. 'ascent' destroys the pictures of the empty "
        "prompt; a share of about 0.1 protects them. 'redirect' hardly affects them.",
        advanced=True,
    )
    schedule: str = choice(
        "linear",
        SCHEDULES,
        help="How the learning rate changes during the run. 'linear': it falls to zero, so that "
        "the last steps smooth out the disturbance of the first steps. 'constant': it stays the "
        "same, as in the paper.",
        advanced=True,
    )
    restrict_step: bool = flag(
        True,
        help="Restrict each step a second time, after the optimizer. The momentum of the optimizer "
        "changes the direction of the step. On: the part of the new direction that works against "
        "forgetting or protecting is removed. With 'retain_ema', the averaged gradient decides. "
        "This costs little time.",
        advanced=True,
    )
    weight_decay: float = number(
        0.0,
        least=0,
        offered=Range(0.0, 1.0, 0.001),
        help="Pulls the trained weights towards zero (AdamW). Values above 0 rarely help a model "
        "that is already trained.",
        advanced=True,
    )
    saliency: float = number(
        1.0,
        above=0,
        most=1,
        offered=Range(0.01, 1.0, 0.05),
        help="Share of the weights that may change; 1 is all of them. 0.5 trains only the half "
        "that matters most to the concept, as SalUn does. Below 1 there is no warm start.",
        advanced=True,
    )
    lora_rank: int = whole(
        16,
        least=1,
        offered=1024,
        help="Rank of the LoRA that the scope 'lora' trains. Higher ranks can change more, but "
        "give a larger file. Other scopes ignore this value.",
        advanced=True,
    )
    lora_alpha: float = number(
        16.0,
        above=0,
        offered=Range(0.01, 1024.0, 0.5),
        help="Strength of the LoRA that the scope 'lora' trains: its output is multiplied by "
        "lora_alpha / lora_rank. Usually equal to the rank, or half of it.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.harden and self.objective != REDIRECT:
            raise ValueError(
                f"harden needs the objective {REDIRECT!r}, got {self.objective!r}; set objective "
                f"to {REDIRECT!r} (recipe 'ours'), or harden to false"
            )
        if self.harden and self.scope in LOW_RANK:
            raise ValueError(
                f"harden needs the weights themselves: low-rank layers do not harden. Set scope to "
                f"{AUTO!r}, got {self.scope!r}, or harden to false"
            )
        if self.saliency < 1 and (self.weight_decay or self.scope in LOW_RANK):
            raise ValueError(
                f"saliency must be 1 with weight_decay above 0 or with a scope of {LORA!r}, got "
                f"{self.saliency!r}; set saliency to 1"
            )

    @property
    def forget_loss(self) -> ForgetObjective:
        return hardened if self.harden else OBJECTIVES[self.objective]

    @property
    def strengths(self) -> Strengths:
        """The strengths of the forget objectives."""
        return Strengths(self.truncation, self.negative_guidance, self.npo_beta)
