"""The inputs of Evaluate Alignment, and what they mean."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.judging.settings import PROBE_CHOICES, EvaluationSettings
from ..host.folders import OWN_SCORER, PAPER_SCORER, scorers
from . import sockets

DEFAULT = EvaluationSettings()
REPORT_NAME = "unlearn_report"


def inputs() -> list[io.Input]:
    return [
        sockets.Result.Input("unlearned", tooltip="From Restricted Gradient Unlearn."),
        io.Int.Input(
            "pictures",
            default=DEFAULT.pictures,
            min=1,
            max=10_000,
            tooltip="Pictures of each of three kinds of prompts, drawn by both models, "
            f"{DEFAULT.pictures} by default. More gives figures that one can trust more, "
            "and takes longer; 8 are enough for a look.",
        ),
        io.Combo.Input(
            "scorer",
            options=scorers(),
            default=OWN_SCORER,
            tooltip=f"The CLIP that judges the pictures. {OWN_SCORER!r}, the default: the one that "
            f"the model's folder brings along; for all other models {PAPER_SCORER}, the paper's, "
            "where it is in models/open_clip. Without any there are pictures but no figures.",
        ),
        io.Combo.Input(
            "probes",
            options=list(PROBE_CHOICES),
            default=DEFAULT.probes,
            tooltip="Whether the concept comes back when somebody tries. 'none', the default. "
            "'wordings': paraphrases, misspellings and long prompts, as much work again. "
            "'all': also a new word that is taught to mean it, and further training on ten of its "
            "pictures, which takes several times as long.",
        ),
        io.String.Input(
            "report_name",
            default=REPORT_NAME,
            tooltip=f"Name of the report's HTML and JSON files in the output folder, "
            f"{REPORT_NAME!r} by default. They are numbered, so that none is overwritten.",
        ),
        *map(sockets.advanced, _advanced_inputs()),
    ]


def _advanced_inputs() -> list[io.Input]:
    drawing = DEFAULT.generation
    return [
        io.Int.Input(
            "seed",
            default=drawing.seed,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip=f"First seed of the pictures, {drawing.seed} by default, far from those that "
            "unlearning used. Another seed draws other pictures of the same prompts.",
        ),
        io.Int.Input(
            "generation_steps",
            default=drawing.steps,
            min=1,
            max=1000,
            tooltip=f"Sampling steps of each picture, {drawing.steps} by default. More draws finer "
            "pictures and takes longer.",
        ),
        io.Float.Input(
            "guidance_scale",
            default=drawing.guidance_scale,
            min=0.1,
            max=100.0,
            step=0.1,
            tooltip=f"How closely the pictures follow their prompts, {drawing.guidance_scale:g} by "
            "default. Use what you draw with; 1 switches guidance off.",
        ),
        io.Int.Input(
            "batch_size",
            default=drawing.batch_size,
            min=1,
            max=1024,
            tooltip=f"Pictures drawn at once, {drawing.batch_size} by default. Fewer need less "
            "memory; the pictures stay the same.",
        ),
    ]
