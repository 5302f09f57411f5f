"""Restricted Gradient Unlearn: the unlearning itself."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy_api.latest import io
from PIL import Image

from ..unlearn_core.dataset import LatentCache, make_training_sets
from ..unlearn_core.evaluation.pictures import before_after, loss_chart
from ..unlearn_core.methods import begin
from ..unlearn_core.models.protocol import ModelHandle
from ..unlearn_core.objectives import OBJECTIVES, RETAIN_OBJECTIVES
from ..unlearn_core.parameters import SCOPES
from ..unlearn_core.previews import PreviewPrompts
from ..unlearn_core.prompts import PromptPairs
from ..unlearn_core.settings import METHODS, GenerationSettings, UnlearnSettings
from ..unlearn_core.unlearn import UnlearnedModel
from . import sockets
from .memory import make_room_to_train
from .pictures import as_image, shown, stacked
from .places import cache_folder
from .progress import Phases, obey_cancel, send_step

DEFAULT = UnlearnSettings()
DRAWING = GenerationSettings()
PREVIEW_EVERY = 20

IMAGES, UNLEARNING = "making images", "unlearning"


class RestrictedGradientUnlearn(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnRestrictedGradient",
            display_name="Unlearn: Restricted Gradient Unlearn",
            category=sockets.CATEGORY,
            description="Makes the model forget the concept while it holds on to the rest: each "
            "step forgets only in directions that do not harm what is to be kept (Ko et al. 2024). "
            "The model that you put in stays as it is.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Model.Input("model", tooltip="The model that is to forget."),
                sockets.Prompts.Input("prompts", tooltip="From Diversify Retain Prompts."),
                *_main_inputs(),
                *map(sockets.advanced, _advanced_inputs()),
            ],
            outputs=[
                sockets.Result.Output(
                    display_name="unlearned",
                    tooltip="The model after unlearning, to evaluate and to save.",
                ),
                io.Image.Output(
                    display_name="loss chart",
                    tooltip="How the losses went, and where forgetting and keeping clashed.",
                ),
                io.Image.Output(
                    display_name="before/after",
                    tooltip="The same prompts and seeds, drawn before and after.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelHandle,
        prompts: PromptPairs,
        method: str,
        objective: str,
        scope: str,
        steps: int,
        learning_rate: float,
        retain_weight: float,
        preview_every: int,
        seed: int,
        batch_size: int,
        retain_batch_factor: int,
        truncation: float,
        retain_objective: str,
        negative_guidance: float,
        generation_steps: int,
        guidance_scale: float,
        lora_rank: int,
        lora_alpha: float,
    ) -> io.NodeOutput:
        settings = UnlearnSettings(
            method=method,
            objective=objective,
            scope=scope,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=batch_size,
            retain_batch_factor=retain_batch_factor,
            retain_weight=retain_weight,
            truncation=truncation,
            retain_objective=retain_objective,
            negative_guidance=negative_guidance,
            seed=seed,
        )
        drawing = GenerationSettings(generation_steps, guidance_scale, seed)
        make_room_to_train(model, settings)  # refuses a scope that this model has nothing of
        node_id = str(cls.hidden.unique_id)
        # ComfyUI runs nodes in inference mode, where nothing can be trained.
        with torch.inference_mode(False), torch.enable_grad():
            unlearned, comparison = unlearn(
                model, prompts, settings, drawing, preview_every, node_id
            )
            chart = loss_chart(unlearned.reports)
            both = as_image(stacked(comparison, chart))
            images = as_image(chart), as_image(comparison)
        return io.NodeOutput(unlearned, *images, ui=shown(cls, both))


def unlearn(
    model: ModelHandle,
    prompts: PromptPairs,
    settings: UnlearnSettings,
    drawing: GenerationSettings,
    preview_every: int,
    node_id: str,
) -> tuple[UnlearnedModel, Image.Image]:
    """The unlearned model and its before/after picture, told to the page step by step."""
    previews = PreviewPrompts.of(prompts, drawing)
    bar = Phases(_costs(prompts, settings, drawing))
    before = previews.draw(model, obey_cancel)
    sets = make_training_sets(
        model,
        prompts,
        drawing,
        cache=LatentCache(cache_folder()),  # so that Cancel loses none of the pictures
        on_picture=bar.of(IMAGES),
        on_step=obey_cancel,
    )
    run = begin(model, sets, settings)
    comparison = None
    for report in run:
        send_step(node_id, report, settings.steps)
        comparison = None
        if preview_every and report.step % preview_every == 0:
            after = previews.draw(run.result().model, obey_cancel)
            comparison = before_after(previews.prompts, before, after)
        bar.update(UNLEARNING, report.step, settings.steps, comparison)
    result = run.result()
    if comparison is None:
        after = previews.draw(result.model, obey_cancel)
        comparison = before_after(previews.prompts, before, after)
    return result, comparison


def _costs(
    prompts: PromptPairs, settings: UnlearnSettings, drawing: GenerationSettings
) -> dict[str, float]:
    """Roughly how often each phase runs the denoiser on one picture: a guided denoising step runs
    it twice, and a training step costs three times as much because it goes back as well."""
    pictures = len(prompts.train) * 2
    per_step = settings.batch_size * (1 + settings.retain_batch_factor)
    return {
        IMAGES: pictures * drawing.steps * 2,
        UNLEARNING: settings.steps * per_step * 3,
    }


def _main_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default=DEFAULT.method,
            tooltip=f"How forgetting and keeping are weighed in each step, {DEFAULT.method!r} by "
            "default, which takes out of either what would work against the other. The other "
            "choices are simpler baselines, for comparison; they tend to damage more.",
        ),
        io.Combo.Input(
            "objective",
            options=list(OBJECTIVES),
            default=DEFAULT.objective,
            tooltip=f"What forgetting means, {DEFAULT.objective!r} by default. 'ascent': the "
            "concept's pictures become unlikely, and what comes instead is left open. "
            "'redirect': the concept's prompts come to draw the replacement, which is gentler and "
            "prettier.",
        ),
        io.Combo.Input(
            "scope",
            options=list(SCOPES),
            default=DEFAULT.scope,
            tooltip=f"Which weights may change, {DEFAULT.scope!r} by default. 'xattn': only where "
            "the words meet the picture, which needs less memory and touches the rest least. "
            "'noxattn': everything else. 'full': all of the denoiser, also for models without "
            "words. 'lora': small layers beside the attention, "
            "which need the least memory and can be saved as a LoRA without loss.",
        ),
        io.Int.Input(
            "steps",
            default=DEFAULT.steps,
            min=1,
            max=100_000,
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
            tooltip=f"How far each step goes, {DEFAULT.learning_rate:g} by default. Higher forgets "
            "faster and is rougher on the rest; too high breaks the model. Large models want a "
            "tenth of it or less.",
        ),
        io.Float.Input(
            "retain_weight",
            default=DEFAULT.retain_weight,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip=f"How much keeping counts against forgetting, {DEFAULT.retain_weight:g} by "
            "default. Higher protects the rest better and forgets more slowly; 0 only forgets.",
        ),
        io.Int.Input(
            "preview_every",
            default=PREVIEW_EVERY,
            min=0,
            max=100_000,
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


def _advanced_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "batch_size",
            default=DEFAULT.batch_size,
            min=1,
            max=1024,
            tooltip=f"Pictures of each kind in a step, {DEFAULT.batch_size} by default. More makes "
            "calmer steps that need more memory and time.",
        ),
        io.Int.Input(
            "retain_batch_factor",
            default=DEFAULT.retain_batch_factor,
            min=1,
            max=64,
            tooltip="How many times as many pictures of what is to be kept, "
            f"{DEFAULT.retain_batch_factor} by default. More protects more precisely and makes "
            "each step slower.",
        ),
        io.Float.Input(
            "truncation",
            default=DEFAULT.truncation,
            min=0.001,
            max=1000.0,
            step=0.05,
            tooltip=f"'ascent' pushes the concept away only up to this error, "
            f"{DEFAULT.truncation:g} by default. Higher pushes it further away and the rest with "
            "it. 'redirect' does not use it.",
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
            tooltip=f"How far 'redirect' aims beyond the replacement, away from the concept, "
            f"{DEFAULT.negative_guidance:g} by default. Higher forgets in fewer steps and wears "
            "the rest down more; 0 forgets slowly. 'ascent' does not use it.",
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
            "by default. Use what you draw with; 1 switches guidance off, which is twice as fast.",
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
    ]
