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
            tooltip=f"The CLIP model that scores the pictures. {OWN_SCORER!r}: the one in the "
            f"model's own folder; for models without one, {PAPER_SCORER}, the paper's, if it is "
            "installed in models/open_clip. You can also choose any other folder there that "
            "contains open_clip_config.json and open_clip_model.safetensors. Without a CLIP the "
            f"report shows pictures but no figures. Default: {OWN_SCORER}.",
        ),
        input_from(EvaluationSettings, "probes"),
        io.String.Input(
            "report_name",
            default=REPORT_NAME,
            tooltip="File name of the report in the output folder: one HTML file that includes "
            "the pictures, and one JSON file with every figure. Files are numbered, so nothing is "
            f"overwritten. Default: {REPORT_NAME}.",
        ),
        input_from(GenerationSettings, "seed", default=FIRST_SEED),
        input_from(GenerationSettings, "steps", name="generation_steps"),
        input_from(GenerationSettings, "guidance_scale"),
        input_from(GenerationSettings, "batch_size"),
    ]
