"""Settings of an unlearning run, checked at construction: a run that cannot work is refused before
any work starts."""

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
"""Ways to unlearn: steps by one of the rules, or one edit in closed form."""

TO_THE_END, LAST_TOKEN = UCE_TOKENS = ("to the end", "last token")
"""The tokens that the edit in closed form looks at."""

MOST_STEPS = 100_000


@dataclass(frozen=True)
class UnlearnSettings:
    """One unlearning run. Forms show the fields in this order, the advanced ones last."""

    objective: str = choice(
        "redirect",
        OBJECTIVES,
        help="What forgetting means. 'redirect': the concept's prompts learn to draw the "
        "replacement; gentle, with clean pictures. 'ascent' (the paper's), 'ascent, stop above' "
        "and 'NPO': the concept's pictures become unlikely, and what comes instead is left open, "
        "often noise; the second pauses while the error is above 'truncation', the third fades "
        "out. 'relabel': trains on the replacement's pictures. 'random label (SalUn)': answers "
        "as the model in training answers the replacement's prompt. 'erase (ESD)': moves the "
        "concept's bare name away from itself, towards the empty prompt.",
    )
    scope: str = choice(
        "xattn",
        SCOPES,
        help="Which weights may change. 'xattn': only where words meet picture, which needs less "
        "memory and touches the rest least. 'noxattn': everything else but the timestep's and the "
        "last layers, as in ESD's first code; 'noxattn-2025': all linear layers and convolutions "
        "outside cross-attention, as in its code since 2025. 'full': the whole denoiser, also for "
        "models without words. 'lora': small layers added to the transformer blocks, which need "
        "the least memory and can be saved as a LoRA without loss.",
    )
    steps: int = whole(
        100,
        least=1,
        most=MOST_STEPS,
        help="Steps of unlearning. More forgets more surely and takes longer, but in the end "
        "wears the rest of the model down.",
    )
    learning_rate: float = number(
        3e-4,
        above=0,
        most=1,
        offered=Range(1e-8, 1.0, 1e-6, precision=1e-8),
        help="How far each step goes, at its highest. The default suits the demo model; begin "
        "with 0.00001 on a full-size model, or 0.0004 with the scope 'lora'. Higher forgets "
        "faster and is rougher on the rest; too high breaks the model.",
    )
    retain_weight: float = number(  # lambda of Theorem 4
        1.0,
        least=0,
        offered=Range(0.0, 100_000.0, 0.1),
        help="How much keeping counts against forgetting. If the concept still shows, lower it. "
        "If close relatives suffer, raise it, to 5 or even 50: forgetting is then slower. 0 only "
        "forgets.",
    )
    seed: int = whole(
        0,
        least=0,
        most=LARGEST_SEED,
        offered=2**32 - 1,
        help="For everything random here. The same seed and settings give the same model; another "
        "seed shows how much was luck.",
    )
    method: str = choice(
        "restricted gradient",
        METHODS,
        help="How each step combines forgetting with keeping; 'recipe' chooses a whole method. "
        "'restricted gradient' removes from each gradient the part that works against the other. "
        "'dual cone' and 'Nash (MUNBa)' combine them in other ways. 'GradDiff' (the plain sum), "
        "'retain only' and 'forget only' are for comparison. 'UCE (closed form)' takes no steps: "
        "done in a second, and rougher.",
        advanced=True,
    )
    retain_objective: str = choice(
        "distill",
        RETAIN_OBJECTIVES,
        help="What keeping means. 'distill': draw everything else as the model did before, which "
        "protects best. 'denoise': go on training on everything else, as in the paper.",
        advanced=True,
    )
    negative_guidance: float = number(  # eta
        0.25,
        least=0,
        offered=Range(0.0, 20.0, 0.05),
        help="How far 'redirect' aims beyond the replacement, and 'erase (ESD)' beyond the empty "
        "prompt, away from the concept. Higher forgets in fewer steps and wears the rest down "
        "more; 0 forgets slowly. Other objectives do not use it.",
        advanced=True,
    )
    truncation: float = number(  # alpha
        1.0,
        above=0,
        offered=Range(0.001, 1000.0, 0.05),
        help="'ascent' and 'ascent, stop above' push the concept away only up to this error. "
        "Higher pushes it further away, and the rest with it. Other objectives do not use it.",
        advanced=True,
    )
    npo_beta: float = number(
        0.01,
        above=0,
        offered=Range(0.00001, 100.0, 0.001, precision=0.00001),
        help="How soon 'NPO' fades out. Higher stops pushing sooner; near 0 it is like 'ascent'. "
        "Other objectives do not use it.",
        advanced=True,
    )
    warm_start: bool = flag(
        True,
        help="Whether the run begins from UCE's closed-form edit of the weights that read the "
        "words, and not from your model as it is. On forgets sooner and more surely. Off is the "
        "paper's way; a newly taught word then brings less back, and the demo model needs a "
        "learning_rate of 0.001. The scopes 'lora' and 'noxattn' have nothing to begin from, and "
        "'saliency' below 1 switches it off.",
        advanced=True,
    )
    warm_start_weight: float = number(
        4.0,
        least=0,
        offered=Range(0.0, 1000.0, 0.5),
        help="How much the preserved prompts count in the edit of 'warm_start'. Higher keeps them "
        "nearer to where they were; too high leaves more of the concept to the steps.",
        advanced=True,
    )
    uce_tokens: str = choice(
        TO_THE_END,
        UCE_TOKENS,
        help="Which words the closed-form edit changes, in 'UCE' and in 'warm_start'. 'to the end':"
        " the concept's last word and everything after it in the prompt, as in UCE's first code. "
        "'last token': the concept's last word alone, as in its code since 2025.",
        advanced=True,
    )
    batch_size: int = whole(
        16,
        least=1,
        offered=1024,
        help="Pictures of each kind in a step, and drawn at once before the first step. More "
        "makes calmer steps that need more memory and time.",
        advanced=True,
    )
    retain_batch_factor: int = whole(
        1,
        least=0,
        offered=64,
        help="How many times as many pictures of what is kept. More protects more precisely and "
        "makes each step slower; 0 looks at all of them in every step, as the paper does for its "
        "best figures, and is slowest.",
        advanced=True,
    )
    # Where more than parallels is kept, such as pictures of one's own, a second batch drawn from
    # the whole retain set follows the parallels.
    paired: bool = flag(
        True,
        help="Whether a step looks at a prompt and at its counterpart without the concept "
        "together, with the same noise. On compares like with like; off sees more different "
        "pictures. Without effect where each step looks at the whole retain set "
        "(retain_batch_factor 0), or at pictures of your own alone.",
        advanced=True,
    )
    diversified: bool = flag(
        True,
        help="Whether the run learns from the pictures of all prompts. Off learns from as many "
        "pictures of the first pair of prompts alone, as the paper's 'RG' does for comparison: the "
        "rest of the model then suffers more.",
        advanced=True,
    )
    stratified_timesteps: bool = flag(
        True,
        help="Whether the pictures of a step are spread evenly over all amounts of noise, which "
        "is calmer. Off draws each amount at random.",
        advanced=True,
    )
    retain_ema: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.999, 0.05),
        help="How long the gradient of what is kept is averaged over the steps; 0 is not at all. "
        "0.9 averages over about ten steps: calmer, but it needs as much memory again as the "
        "trained weights.",
        advanced=True,
    )
    empty_share: float = number(
        0.0,
        least=0,
        below=1,
        offered=Range(0.0, 0.9, 0.05),
        help="Share of what is kept that is looked at with an empty prompt. Guidance draws every "
        "picture by its distance from the empty prompt's. 'ascent' wrecks that unless about 0.1 "
        "protects it; 'redirect' hardly touches it.",
        advanced=True,
    )
    schedule: str = choice(
        "linear",
        SCHEDULES,
        help="How the learning rate changes over the steps. 'linear': down to zero, so that the "
        "last steps settle what the first have stirred up. 'constant': level, as in the paper.",
        advanced=True,
    )
    restrict_step: bool = flag(
        True,
        help="Whether each finished step is restricted once more. The optimizer's momentum bends "
        "the direction; on takes out what would harm either goal after that (with retain_ema, "
        "against the averaged gradient). It costs little.",
        advanced=True,
    )
    weight_decay: float = number(
        0.0,
        least=0,
        offered=Range(0.0, 1.0, 0.001),
        help="Pulls the trained weights towards zero (AdamW). More is seldom good for a model "
        "that is trained already.",
        advanced=True,
    )
    saliency: float = number(
        1.0,
        above=0,
        most=1,
        offered=Range(0.01, 1.0, 0.05),
        help="Share of the weights that may change; 1 is all. 0.5 trains the half that matters "
        "most to the concept, as SalUn does. Below 1 there is no warm start.",
        advanced=True,
    )
    lora_rank: int = whole(
        16,
        least=1,
        offered=1024,
        help="Rank of the layers that the scope 'lora' trains. Higher can change more, in a "
        "larger file. Other scopes do not use it.",
        advanced=True,
    )
    lora_alpha: float = number(
        16.0,
        above=0,
        offered=Range(0.01, 1024.0, 0.5),
        help="Strength of those layers: what they add is multiplied by lora_alpha / lora_rank. "
        "Usually the same as the rank, or half of it.",
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
        """What the forget objectives are given."""
        return Strengths(self.truncation, self.negative_guidance, self.npo_beta)
