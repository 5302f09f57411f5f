"""The inputs of Restricted Gradient Unlearn: the common ones first, then the advanced ones.

All are optional, so that prompts saved by an earlier version stay valid when an input is added.
"""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ...unlearn_core.dataset.settings import GenerationSettings
from ...unlearn_core.foundation.fields import Choice, settings_of
from ...unlearn_core.unlearning.recipes import RECIPES, RecipeChoice
from ...unlearn_core.unlearning.settings import MOST_STEPS, UnlearnSettings
from . import sockets
from .from_settings import input_from, input_of, inputs_from

PREVIEW_EVERY = 5
STRENGTH = 1.0
AS_SAVED = "as saved"
"""The choice of no recipe: the inputs keep their values. Graphs from versions without recipes open
with this choice."""


def inputs() -> list[io.Input]:
    return [
        _recipe(),
        *inputs_from(UnlearnSettings, advanced=False, optional=True),
        io.Float.Input(
            "strength",
            default=STRENGTH,
            min=0.0,
            max=4.0,
            step=0.05,
            optional=True,
            tooltip="Strength of the change in the output MODEL: 0 is the original model, 1 the "
            "model as trained. Above 1 it forgets more, but the rest may suffer. Only for a model "
            "from From ComfyUI. When you change only this, nothing is trained again. The output "
            f"'strengths' shows what it does. Default: {STRENGTH}.",
        ),
        sockets.advanced(
            io.Int.Input(
                "preview_every",
                default=PREVIEW_EVERY,
                min=0,
                max=MOST_STEPS,
                optional=True,
                tooltip="Number of steps between previews. A preview draws the same few prompts, "
                "so that you can watch the model forget. Each preview takes a little time. With 0 "
                f"there are no previews during the run. Default: {PREVIEW_EVERY}.",
            )
        ),
        *inputs_from(UnlearnSettings, advanced=True, optional=True),
        input_from(GenerationSettings, "steps", name="generation_steps", optional=True),
        input_from(GenerationSettings, "guidance_scale", optional=True),
        input_from(GenerationSettings, "seed", name="generation_seed", optional=True),
        sockets.advanced(
            io.Int.Input(
                "keep_step",
                default=0,
                min=0,
                max=MOST_STEPS,
                optional=True,
                tooltip="The output is the model after this step; 0 means the last step. The panel "
                "sets this input when you stop a run or keep an earlier step, so that your choice "
                "is saved in the workflow. Later runs also end at this step, until you press "
                "'Run all steps' or set it back to 0. Default: 0.",
            )
        ),
    ]


def _recipe() -> io.Input:
    setting = settings_of(RecipeChoice)["recipe"]
    options = Choice((*RECIPES, AS_SAVED))
    help_text = f"{setting.help} {AS_SAVED!r} leaves all inputs as they are."
    recipes = {name: dict(values) for name, values in RECIPES.items()}
    recipe = input_of(dataclasses.replace(setting, kind=options, help=help_text), optional=True)
    recipe.extra_dict = {"recipes": recipes}  # for the page, which fills the inputs
    return recipe
