"""Restricted Gradient Unlearn: the unlearning itself."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy_api.latest import io
from PIL import Image

from ..unlearn_core.dataset import LatentCache, make_training_sets
from ..unlearn_core.evaluation.pictures import before_after, loss_chart
from ..unlearn_core.methods import begin, check
from ..unlearn_core.models.protocol import ModelHandle
from ..unlearn_core.own_pictures import OwnPictures
from ..unlearn_core.previews import PreviewPrompts
from ..unlearn_core.prompts import PromptPairs
from ..unlearn_core.settings import GenerationSettings, UnlearnSettings
from ..unlearn_core.unlearn import UnlearnedModel
from . import sockets
from .memory import make_room
from .pictures import as_image, shown, stacked
from .places import cache_folder
from .progress import Phases, obey_cancel, send_step
from .unlearn_inputs import advanced_inputs, main_inputs

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
                *main_inputs(),
                *map(sockets.advanced, advanced_inputs()),
                sockets.Pictures.Input(
                    "forget_pictures",
                    optional=True,
                    tooltip="Pictures of the concept, from Own Pictures, for a concept that the "
                    "model draws badly or knows under another name.",
                ),
                sockets.Pictures.Input(
                    "retain_pictures",
                    optional=True,
                    tooltip="Pictures of what must stay as it is, from Own Pictures.",
                ),
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
        schedule: str,
        restrict_step: bool,
        paired: bool,
        retain_ema: float,
        npo_beta: float,
        saliency: float,
        weight_decay: float,
        forget_pictures: OwnPictures | None = None,
        retain_pictures: OwnPictures | None = None,
    ) -> io.NodeOutput:
        settings = UnlearnSettings(
            method=method,
            objective=objective,
            scope=scope,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            steps=steps,
            learning_rate=learning_rate,
            schedule=schedule,
            batch_size=batch_size,
            retain_batch_factor=retain_batch_factor,
            paired=paired,
            retain_ema=retain_ema,
            restrict_step=restrict_step,
            weight_decay=weight_decay,
            saliency=saliency,
            retain_weight=retain_weight,
            truncation=truncation,
            retain_objective=retain_objective,
            negative_guidance=negative_guidance,
            npo_beta=npo_beta,
            seed=seed,
        )
        drawing = GenerationSettings(generation_steps, guidance_scale, seed, batch_size)
        check(model, settings)
        make_room()
        node_id = str(cls.hidden.unique_id)
        # ComfyUI runs nodes in inference mode, where nothing can be trained.
        with torch.inference_mode(False), torch.enable_grad():
            unlearned, comparison = unlearn(
                model,
                prompts,
                settings,
                drawing,
                preview_every,
                node_id,
                forget_pictures,
                retain_pictures,
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
    forget_pictures: OwnPictures | None,
    retain_pictures: OwnPictures | None,
) -> tuple[UnlearnedModel, Image.Image]:
    """The unlearned model and its before/after picture, told to the page step by step."""
    previews = PreviewPrompts.of(prompts, drawing)
    bar = Phases(_costs(prompts, settings, drawing))
    before = previews.draw(model, obey_cancel)
    sets = make_training_sets(
        model,
        prompts,
        drawing,
        forget_pictures=forget_pictures,
        retain_pictures=retain_pictures,
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
    pairs = sum(len(part.train) for part in prompts.each)
    retained = settings.batch_size * settings.retain_batch_factor or pairs
    per_step = settings.batch_size + retained
    return {
        IMAGES: 2 * pairs * drawing.steps * 2,
        UNLEARNING: settings.steps * per_step * 3,
    }
