"""The inputs of Restricted Gradient Unlearn: the few that most people need, then the others."""

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
            tooltip="Draws the same few prompts every so many steps, so that you see the model "
            "forget. Each preview takes a little time; 0 draws none on the way. "
            f"Default: {PREVIEW_EVERY}.",
        ),
        *inputs_from(UnlearnSettings, advanced=True),
        input_from(GenerationSettings, "steps", called="generation_steps"),
        input_from(GenerationSettings, "guidance_scale"),
        sockets.advanced(
            io.Int.Input(
                "keep_step",
                default=0,
                min=0,
                max=MOST_STEPS,
                tooltip="Gives the model as it was after this step; 0 for the last one. The panel "
                "sets it when you stop a run or go back to an earlier picture, so that the "
                "workflow records what you kept. It ends later runs at that step, too, until you "
                "press 'Run all steps' or set it back. Default: 0.",
            )
        ),
    ]
