"""The inputs of Restricted Gradient Unlearn: the few that most people need, and the others."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.dataset.settings import GenerationSettings
from ...unlearn_core.unlearning.objectives import OBJECTIVES, RETAIN_OBJECTIVES
from ...unlearn_core.unlearning.optimizer import SCHEDULES
from ...unlearn_core.unlearning.scopes import SCOPES
from ...unlearn_core.unlearning.settings import METHODS, MOST_STEPS, UnlearnSettings
from . import sockets

DEFAULT = UnlearnSettings()
DRAWING = GenerationSettings()
PREVIEW_EVERY = 20


def main_inputs() -> list[io.Input]:
    return [
        sockets.advanced(_method()),  # first, where workflows have its value
        io.Combo.Input(
            "objective",
            options=list(OBJECTIVES),
            default=DEFAULT.objective,
            tooltip=f"What forgetting means, {DEFAULT.objective!r} by default: the concept's "
            "prompts come to draw the replacement, which is gentle and pretty. 'ascent', 'ascent, "
            "stop above' and 'NPO': the concept's pictures become unlikely, and what comes instead "
            "is left open. 'relabel': train on the replacement's pictures. 'random label "
            "(SalUn)': answer as to the replacement's prompt, whatever the model answers there by "
            "then. 'erase (ESD)': the concept's bare name, away from itself, towards the empty "
            "prompt.",
        ),
        io.Combo.Input(
            "scope",
            options=list(SCOPES),
            default=DEFAULT.scope,
            tooltip=f"Which weights may change, {DEFAULT.scope!r} by default. 'xattn': only where "
            "the words meet the picture, which needs less memory and touches the rest least. "
            "'noxattn': everything else but the timestep's and the last layers, as ESD has it. "
            "'full': all of the denoiser, also for models without words. 'lora': small layers "
            "added to the transformer blocks, which need the least memory and can be saved as a "
            "LoRA without loss.",
        ),
        io.Int.Input(
            "steps",
            default=DEFAULT.steps,
            min=1,
            max=MOST_STEPS,
            tooltip=f"Steps of unlearning, {DEFAULT.steps} by default. More forgets more surely, "
            "takes longer, and in the end wears the rest of the model down.",
        ),
        io.Float.Input(
            "learning_rate",
            default=DEFAULT.learning_rate,
            min=1e-8,
            max=1.0,
            step=1e-6,
            round=1e-8,
            tooltip=f"How far each step goes, {DEFAULT.learning_rate:g} by default, which suits "
            "the demo model; a full-size model wants 0.00001 (scope lora: 0.0004). Higher forgets "
            "faster and is rougher on the rest; too high breaks the model.",
        ),
        io.Float.Input(
            "retain_weight",
            default=DEFAULT.retain_weight,
            min=0.0,
            max=100_000.0,
            step=0.1,
            tooltip=f"How much keeping counts against forgetting, {DEFAULT.retain_weight:g} by "
            "default. Higher protects the rest better, 5 or even 50, and forgets more slowly; 0 "
            "only forgets.",
        ),
        io.Int.Input(
            "preview_every",
            default=PREVIEW_EVERY,
            min=0,
            max=MOST_STEPS,
            tooltip=f"Draw a few fixed prompts every so many steps, {PREVIEW_EVERY} by default, so "
            "that you see the model forget. Each preview takes a little time; 0 draws none on the "
            "way.",
        ),
        io.Int.Input(
            "seed",
            default=DEFAULT.seed,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip=f"For all that is random here, {DEFAULT.seed} by default. The same seed and "
            "settings give the same model; another seed tells how much was luck.",
        ),
    ]


def _method() -> io.Input:
    return io.Combo.Input(
        "method",
        options=list(METHODS),
        default=DEFAULT.method,
        tooltip=f"How forgetting and keeping are weighed in each step, {DEFAULT.method!r} by "
        "default, which takes out of either what would work against the other. 'dual cone' "
        "and 'Nash (MUNBa)' weigh them in other ways; the rest are simpler baselines, for "
        "comparison: the help page says what else to set for them. 'UCE (closed form)' takes "
        "no steps: done in a second, and rougher.",
    )


def advanced_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "batch_size",
            default=DEFAULT.batch_size,
            min=1,
            max=1024,
            tooltip=f"Pictures of each kind in a step, {DEFAULT.batch_size} by default, and drawn "
            "at once before. More makes calmer steps that need more memory and time.",
        ),
        io.Int.Input(
            "retain_batch_factor",
            default=DEFAULT.retain_batch_factor,
            min=0,
            max=64,
            tooltip="How many times as many pictures of what is to be kept, "
            f"{DEFAULT.retain_batch_factor} by default. More protects more precisely and makes "
            "each step slower; 0 looks at all of them in every step, which is slowest.",
        ),
        io.Float.Input(
            "truncation",
            default=DEFAULT.truncation,
            min=0.001,
            max=1000.0,
            step=0.05,
            tooltip="'ascent' and 'ascent, stop above' push the concept away only up to this "
            f"error, {DEFAULT.truncation:g} by default. Higher pushes it further away and the rest "
            "with it. Other objectives do not use it.",
        ),
        io.Combo.Input(
            "retain_objective",
            options=list(RETAIN_OBJECTIVES),
            default=DEFAULT.retain_objective,
            tooltip=f"What keeping means, {DEFAULT.retain_objective!r} by default. 'distill': draw "
            "everything else as the model did before, which protects best. 'denoise': go on "
            "training on everything else, as in the paper.",
        ),
        io.Float.Input(
            "negative_guidance",
            default=DEFAULT.negative_guidance,
            min=0.0,
            max=20.0,
            step=0.05,
            tooltip="How far 'redirect' and 'erase (ESD)' aim beyond the replacement, away from "
            f"the concept, {DEFAULT.negative_guidance:g} by default. Higher forgets in fewer steps "
            "and wears the rest down more; 0 forgets slowly. Other objectives do not use it.",
        ),
        io.Int.Input(
            "generation_steps",
            default=DRAWING.steps,
            min=1,
            max=1000,
            tooltip=f"Sampling steps of every picture drawn here, {DRAWING.steps} by default. More "
            "draws finer pictures to learn from and takes longer.",
        ),
        io.Float.Input(
            "guidance_scale",
            default=DRAWING.guidance_scale,
            min=0.1,
            max=100.0,
            step=0.1,
            tooltip=f"How closely those pictures follow their prompts, {DRAWING.guidance_scale:g} "
            "by default. Use what you draw with; 1 switches guidance off, which is twice as fast. "
            "Models of classes without an empty class draw without guidance.",
        ),
        io.Int.Input(
            "lora_rank",
            default=DEFAULT.lora_rank,
            min=1,
            max=1024,
            tooltip=f"Rank of the layers that the scope 'lora' trains, {DEFAULT.lora_rank} by "
            "default. Higher can change more, in a larger file. Other scopes do not use it.",
        ),
        io.Float.Input(
            "lora_alpha",
            default=DEFAULT.lora_alpha,
            min=0.01,
            max=1024.0,
            step=0.5,
            tooltip=f"Strength of those layers, {DEFAULT.lora_alpha:g} by default: what they add "
            "is multiplied by lora_alpha / lora_rank. Usually the same as the rank, or half of it.",
        ),
        io.Combo.Input(
            "schedule",
            options=list(SCHEDULES),
            default=DEFAULT.schedule,
            tooltip=f"How the learning rate runs over the steps, {DEFAULT.schedule!r} by default: "
            "down to zero, so that the last steps settle what the first have stirred up. "
            "'constant': level, as in the paper.",
        ),
        io.Boolean.Input(
            "restrict_step",
            default=DEFAULT.restrict_step,
            tooltip="Whether each finished step is checked once more, "
            f"{_on(DEFAULT.restrict_step)} by default. The optimizer's momentum bends the "
            "direction; on takes out what would harm either goal after that (with retain_ema, what "
            "is to be kept as it is remembered). It costs little.",
        ),
        io.Boolean.Input(
            "paired",
            default=DEFAULT.paired,
            tooltip="Whether a step looks at a prompt and at the same prompt without the concept "
            f"together, with the same noise, {_on(DEFAULT.paired)} by default. On compares like "
            "with like; off sees more different pictures. Without effect where each step looks at "
            "all that is to be kept (retain_batch_factor 0), or at pictures of your own alone.",
        ),
        io.Float.Input(
            "retain_ema",
            default=DEFAULT.retain_ema,
            min=0.0,
            max=0.999,
            step=0.05,
            tooltip="How long what is to be kept is remembered from step to step, "
            f"{DEFAULT.retain_ema:g} by default, which is not at all. 0.9 averages over about ten "
            "steps: calmer, and it needs as much memory again as the trained weights.",
        ),
        io.Float.Input(
            "npo_beta",
            default=DEFAULT.npo_beta,
            min=0.00001,
            max=100.0,
            step=0.001,
            round=0.00001,
            tooltip=f"How soon 'NPO' is content, {DEFAULT.npo_beta:g} by default. Higher stops "
            "pushing sooner; near 0 it is like 'ascent'. Other objectives do not use it.",
        ),
        io.Float.Input(
            "saliency",
            default=DEFAULT.saliency,
            min=0.01,
            max=1.0,
            step=0.05,
            tooltip=f"Share of the weights that may change, {DEFAULT.saliency:g} by default: all. "
            "0.5 trains the half that matters most to the concept, as SalUn does.",
        ),
        io.Float.Input(
            "weight_decay",
            default=DEFAULT.weight_decay,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip=f"Pulls the trained weights towards zero, {DEFAULT.weight_decay:g} by default. "
            "More is seldom good for a model that is trained already.",
        ),
        io.Int.Input(
            "keep_step",
            default=0,
            min=0,
            max=MOST_STEPS,
            tooltip="Give the model as it was after this step; 0, the default, for the last one. "
            "The panel sets it when you stop a run or go back to an earlier picture, so that the "
            "workflow tells what you kept.",
        ),
        io.Boolean.Input(
            "warm_start",
            default=DEFAULT.warm_start,
            tooltip="Whether to begin from an edit of the words' weights that is worked out at "
            f"once (UCE), {_on(DEFAULT.warm_start)} by default. On forgets sooner and more surely; "
            "off begins from your model as it is, as the paper does, and a newly taught word "
            "brings less back. The scopes lora and noxattn have nothing to begin from, and "
            "'saliency' below 1 switches it off.",
        ),
        io.Float.Input(
            "empty_share",
            default=DEFAULT.empty_share,
            min=0.0,
            max=0.9,
            step=0.05,
            tooltip="Share of what is to be kept that is looked at with an empty prompt, "
            f"{DEFAULT.empty_share:g} by default. Every picture is drawn by its distance from the "
            "empty prompt's (guidance): 'ascent' wrecks that unless 0.1 or so keep it. 'redirect' "
            "hardly touches it.",
        ),
        io.Boolean.Input(
            "stratified_timesteps",
            default=DEFAULT.stratified_timesteps,
            tooltip="Whether the pictures of a step are spread evenly over all amounts of noise, "
            f"{_on(DEFAULT.stratified_timesteps)} by default, which is calmer. Off draws each "
            "amount by chance.",
        ),
        io.Float.Input(
            "warm_start_weight",
            default=DEFAULT.warm_start_weight,
            min=0.0,
            max=1000.0,
            step=0.5,
            tooltip="How much what is to stay counts in the edit of 'warm_start', "
            f"{DEFAULT.warm_start_weight:g} by default. Higher keeps more of it as it is; too high "
            "leaves more of the concept to the steps.",
        ),
    ]


def _on(value: bool) -> str:
    return "on" if value else "off"
