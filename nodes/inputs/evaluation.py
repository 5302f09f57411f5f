"""The inputs of Evaluate Alignment, and what they mean."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.dataset.settings import GenerationSettings
from ...unlearn_core.judging.settings import FIRST_SEED, EvaluationSettings
from ..host.folders import OWN_SCORER, PAPER_SCORER, scorers
from . import sockets
from .from_settings import input_from

REPORT_NAME = "unlearn_report"


def inputs() -> list[io.Input]:
    return [
        sockets.Result.Input("unlearned", tooltip="From Restricted Gradient Unlearn."),
        input_from(EvaluationSettings, "pictures"),
        io.Combo.Input(
            "scorer",
            options=scorers(),
            default=OWN_SCORER,
            tooltip=f"The CLIP that judges the pictures. {OWN_SCORER!r}: the one that the model's "
            f"folder brings along; for all other models {PAPER_SCORER}, the paper's, where it is "
            "in models/open_clip. Any other folder there with open_clip_config.json and "
            "open_clip_model.safetensors can be chosen. Without any there are pictures but no "
            f"figures. Default: {OWN_SCORER}.",
        ),
        input_from(EvaluationSettings, "probes"),
        io.String.Input(
            "report_name",
            default=REPORT_NAME,
            tooltip="Name of the report in the output folder: one HTML file with the pictures in "
            "it, and one JSON file with every figure. They are numbered, so that none is "
            f"overwritten. Default: {REPORT_NAME}.",
        ),
        input_from(GenerationSettings, "seed", default=FIRST_SEED),
        input_from(GenerationSettings, "steps", called="generation_steps"),
        input_from(GenerationSettings, "guidance_scale"),
        input_from(GenerationSettings, "batch_size"),
    ]
