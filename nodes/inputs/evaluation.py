"""The inputs of Evaluate Alignment."""

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
            tooltip=f"The CLIP model that judges the pictures. {OWN_SCORER!r}: the CLIP in the "
            f"model's folder. If there is none: the paper's CLIP, {PAPER_SCORER}, if it is "
            "installed in models/open_clip. You can also choose another folder in "
            "models/open_clip. It must contain open_clip_config.json and "
            "open_clip_model.safetensors. Without CLIP the "
            f"report shows pictures but no figures. Default: {OWN_SCORER}.",
        ),
        input_from(EvaluationSettings, "probes"),
        io.String.Input(
            "report_name",
            default=REPORT_NAME,
            tooltip="Name of the report's two files in ComfyUI's output folder: an HTML file with "
            "the pictures, and a JSON file with all figures. A number is added to the name, so "
            f"nothing is overwritten. Default: {REPORT_NAME}.",
        ),
        input_from(GenerationSettings, "seed", default=FIRST_SEED),
        input_from(GenerationSettings, "steps", name="generation_steps"),
        input_from(GenerationSettings, "guidance_scale"),
        input_from(GenerationSettings, "batch_size"),
    ]
