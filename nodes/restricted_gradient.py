"""Restricted Gradient Unlearn: the unlearning itself."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context

from ..unlearn_core.dataset.own_pictures import OwnPictures
from ..unlearn_core.dataset.settings import GenerationSettings
from ..unlearn_core.job.engine import Task
from ..unlearn_core.models.protocol import ModelHandle
from ..unlearn_core.prompts.pairs import PromptPairs
from ..unlearn_core.reporting.loss_picture import loss_picture
from ..unlearn_core.unlearning.recipes import OURS, from_recipe
from ..unlearn_core.unlearning.results import UnlearnedModel
from ..unlearn_core.unlearning.settings import MOST_PICTURE_PAIRS
from .host.images import as_image
from .host.memory import ALL, load
from .inputs import sockets
from .inputs.links import require_link
from .inputs.unlearn import AS_SAVED, PREVIEW_EVERY, STRENGTH, inputs
from .inputs.values import checked
from .native.handle import NativeHandle
from .native.lora_file import lora_state_dict
from .native.patching import patched_model
from .page.followed_run import FollowedRun
from .page.runs import RESTARTS

DRAWING = GenerationSettings()
NOT_OF_COMFYUI = (
    "This output of Restricted Gradient Unlearn needs a model from the node From ComfyUI. A model "
    "from Load Model is saved with Save Checkpoint first."
)
NO_VAE = "This output of Restricted Gradient Unlearn needs a VAE: link one to From ComfyUI."


class RestrictedGradientUnlearn(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnRestrictedGradient",
            display_name="Unlearn: Restricted Gradient Unlearn",
            category=sockets.CATEGORY,
            description="Makes the model forget the concept and keep the rest. The part of each "
            "step that would harm the rest is removed (Ko et al. 2024). The input model itself is "
            "not changed.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            inputs=[
                sockets.Model.Input("model", tooltip="The model that should forget."),
                sockets.Prompts.Input("prompts", tooltip="From Diversify Retain Prompts."),
                *inputs(),
                sockets.Pictures.Input(
                    "forget_pictures",
                    optional=True,
                    tooltip="Optional, from Own Pictures: pictures of the concept. Use them if the "
                    "model draws the concept badly or knows it under another name. Needed "
                    "for a look: pictures with it.",
                ),
                sockets.Pictures.Input(
                    "retain_pictures",
                    optional=True,
                    tooltip="Optional, from Own Pictures: pictures of things that must not change. "
                    "Needed for a look: pictures without it. If they have the names of those with "
                    "it, they are twins, which differ only in the look; few of them are enough.",
                ),
            ],
            outputs=[
                sockets.Result.Output(
                    display_name="unlearned",
                    tooltip="The model after unlearning, to evaluate and to save.",
                ),
                io.Image.Output(
                    display_name="loss chart",
                    tooltip="A chart of the losses at each step. It also marks the steps in which "
                    "forgetting and protecting were in conflict.",
                ),
                io.Image.Output(
                    display_name="before/after",
                    tooltip="The same prompts and seeds, drawn before and after.",
                ),
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="The model after unlearning, for KSampler and all other nodes, with "
                    "the chosen strength. Only with From ComfyUI.",
                ),
                sockets.LoraModel.Output(
                    display_name="lora",
                    tooltip="The change as a LoRA, for ComfyUI's Save LoRA Weights and Load LoRA "
                    "Model. Only with From ComfyUI.",
                ),
                io.Image.Output(
                    display_name="strengths",
                    tooltip="A prompt with the concept at strength 0, 0.5, 1 and 1.5. Only with "
                    "From ComfyUI.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> object:
        """A node whose run the user starts again counts as changed."""
        context = get_executing_context()
        return 0 if context is None else RESTARTS[context.node_id]

    @classmethod
    @checked
    def execute(
        cls,
        model: ModelHandle,
        prompts: PromptPairs,
        recipe: str = AS_SAVED,
        preview_every: int = PREVIEW_EVERY,
        strength: float = STRENGTH,
        keep_step: int = 0,
        generation_steps: int = DRAWING.steps,
        guidance_scale: float = DRAWING.guidance_scale,
        generation_seed: int | None = None,
        forget_pictures: OwnPictures | None = None,
        retain_pictures: OwnPictures | None = None,
        **fields: Any,  # of UnlearnSettings
    ) -> io.NodeOutput:
        require_link("model", model, ModelHandle, "Load Model or From ComfyUI")
        require_link("prompts", prompts, PromptPairs, "Diversify Retain Prompts")
        own = {"forget_pictures": forget_pictures, "retain_pictures": retain_pictures}
        for name, pictures in own.items():
            if pictures is not None:
                require_link(name, pictures, OwnPictures, "Own Pictures")
        # Prompts of versions without these inputs used pictures of all pairs, with all their steps,
        # and did not protect prompts.
        fields.setdefault("picture_pairs", MOST_PICTURE_PAIRS)
        fields.setdefault("picture_steps", generation_steps)
        fields.setdefault("prompt_protection", 0.0)
        settings = from_recipe(OURS if recipe == AS_SAVED else recipe, **fields)
        drawing = GenerationSettings(
            generation_steps,
            guidance_scale,
            # Prompts of versions without this input used the run's seed for the pictures too.
            settings.seed if generation_seed is None else generation_seed,
            settings.batch_size or DRAWING.batch_size,
        )
        task = Task(model, prompts, settings, drawing, forget_pictures, retain_pictures)
        if keep_step > task.settings.steps:
            raise ValueError(
                f"keep_step must be at most {task.settings.steps}, the number of steps, got "
                f"{keep_step}; press 'Run all steps', or set it to 0"
            )
        task.check()
        load(model, ALL)
        with torch.inference_mode(False):  # ComfyUI runs nodes in this mode, which forbids training
            followed = FollowedRun(task, settings, preview_every, keep_step)
            run, unlearned = followed.run_or_return(str(cls.hidden.unique_id), workflow_id(cls))
            load(unlearned)  # registers the trained weights with ComfyUI
            chart = as_image(loss_picture(unlearned.reports))
            comparison, strengths = _pictures(followed, unlearned)
            patched, lora = _for_comfyui(unlearned, strength)
        ui = {"text": [run.note], "unlearn_run": [run.as_json()]}
        return io.NodeOutput(unlearned, chart, comparison, patched, lora, strengths, ui=ui)


def _pictures(followed: FollowedRun, unlearned: UnlearnedModel) -> tuple[Any, Any]:
    """The outputs with pictures: before and after, and the strengths."""
    if not unlearned.base.can_decode:
        return ExecutionBlocker(NO_VAE), ExecutionBlocker(NO_VAE)
    comparison = as_image(followed.comparison(unlearned))
    if not isinstance(unlearned.model, NativeHandle):
        return comparison, ExecutionBlocker(NOT_OF_COMFYUI)
    return comparison, as_image(followed.strengths(unlearned))


def _for_comfyui(unlearned: UnlearnedModel, strength: float) -> tuple[Any, Any]:
    """The change in ComfyUI's own types: MODEL and LORA_MODEL."""
    if not isinstance(unlearned.model, NativeHandle):
        return ExecutionBlocker(NOT_OF_COMFYUI), ExecutionBlocker(NOT_OF_COMFYUI)
    given = unlearned.model.network.given
    return patched_model(given, unlearned.model, strength), lora_state_dict(unlearned.model)


def workflow_id(node: type[io.ComfyNode]) -> str | None:
    """The id of the graph that the node was queued from; None if a script queued it."""
    part: object = node.hidden.extra_pnginfo
    for name in ("workflow", "id"):  # a script may send anything in their place
        part = part.get(name) if isinstance(part, Mapping) else None
    return part if isinstance(part, str) else None
