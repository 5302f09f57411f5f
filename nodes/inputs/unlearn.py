"""The inputs of Restricted Gradient Unlearn: the common ones first, then the advanced ones."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.dataset.settings import GenerationSettings
from ...unlearn_core.unlearning.settings import MOST_STEPS, UnlearnSettings
from . import sockets
from .from_settings import input_from, inputs_from

PREVIEW_EVERY = 20


def inputs() -> list[io.Input]:
    return [
        *inputs_from(UnlearnSettings, advanced=False),
        io.Int.Input(
            "preview_every",
            default=PREVIEW_EVERY,
            min=0,
            max=MOST_STEPS,
            tooltip="Number of steps between previews. Each preview draws the same few prompts, "
            "so that you can watch the model forget, and takes a little time. 0 draws none "
            f"during the run. Default: {PREVIEW_EVERY}.",
        ),
        *inputs_from(UnlearnSettings, advanced=True),
        input_from(GenerationSettings, "steps", name="generation_steps"),
        input_from(GenerationSettings, "guidance_scale"),
        sockets.advanced(
            io.Int.Input(
                "keep_step",
                default=0,
                min=0,
                max=MOST_STEPS,
                tooltip="Outputs the model as it was after this step; 0 means the last step. The "
                "panel sets it when you stop a run or go back to an earlier picture, so that the "
                "workflow records your choice. Later runs also end at this step until you press "
                "'Run all steps' or set it back to 0. Default: 0.",
            )
        ),
    ]
