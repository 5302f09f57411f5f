"""Evaluate Alignment: what was forgotten, what was kept, in pictures and figures."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..unlearn_core.dataset import LatentCache
from ..unlearn_core.evaluation import evaluate
from ..unlearn_core.evaluation.pictures import comparison_grid
from ..unlearn_core.evaluation.report import summary, table
from ..unlearn_core.settings import EvaluationSettings, GenerationSettings
from ..unlearn_core.unlearn import UnlearnedModel
from . import sockets
from .memory import make_room
from .pictures import as_image, shown
from .places import cache_folder
from .progress import Phases, obey_cancel

DEFAULT = EvaluationSettings()
DRAWING, JUDGING = "drawing", "judging"


class EvaluateAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnEvaluateAlignment",
            display_name="Unlearn: Evaluate Alignment",
            category=sockets.CATEGORY,
            description="Draws the same prompts with the model before and after, and counts: is "
            "the concept gone, and is everything else still there?",
            is_output_node=True,
            inputs=[
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
                *map(sockets.advanced, _advanced_inputs()),
            ],
            outputs=[
                sockets.Report.Output(
                    display_name="report", tooltip="To store beside the model in Save Checkpoint."
                ),
                io.Image.Output(
                    display_name="before/after grid",
                    tooltip="The same prompts and seeds before and after, with labels.",
                ),
                io.String.Output(display_name="table", tooltip="The figures, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        unlearned: UnlearnedModel,
        pictures: int,
        seed: int,
        generation_steps: int,
        guidance_scale: float,
        batch_size: int,
    ) -> io.NodeOutput:
        generation = GenerationSettings(generation_steps, guidance_scale, seed, batch_size)
        settings = EvaluationSettings(pictures, generation)
        bar = Phases({DRAWING: 95, JUDGING: 5})
        make_room()
        # Tensors made in inference mode, as ComfyUI runs nodes, could not be trained on later.
        with torch.inference_mode(False), torch.no_grad():
            report = evaluate(
                unlearned,
                settings,
                cache=LatentCache(cache_folder()),
                on_picture=bar.of(DRAWING),
                on_step=obey_cancel,
            )
            bar.update(JUDGING, 1, 1)
            grid = as_image(comparison_grid(report))
        figures = f"{summary(report)}\n\n{table(report)}"
        return io.NodeOutput(report, grid, figures, ui=shown(cls, grid, figures))


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
