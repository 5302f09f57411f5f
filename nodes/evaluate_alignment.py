"""Evaluate Alignment: pictures and figures of what was forgotten and what was preserved."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..unlearn_core.dataset.drawing import LatentCache
from ..unlearn_core.dataset.settings import GenerationSettings
from ..unlearn_core.evaluation.evaluate import evaluate
from ..unlearn_core.foundation.progress import EVALUATING, PROBING
from ..unlearn_core.judging.probes import ATTACKS
from ..unlearn_core.judging.settings import EvaluationSettings
from ..unlearn_core.reporting.grids import comparison_grid
from ..unlearn_core.reporting.report import summary, table
from ..unlearn_core.unlearning.results import UnlearnedModel
from .host.folders import OWN_SCORER, PAPER_SCORER, cache_folder, scorer_for, scorer_path, scorers
from .host.images import as_image
from .host.memory import ALL, load
from .host.plain_names import check_name
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.evaluation import inputs
from .inputs.links import require_link
from .inputs.values import checked
from .page.report_files import for_page, save_report

REPORTING = "reporting"


class EvaluateAlignment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnEvaluateAlignment",
            display_name="Unlearn: Evaluate Alignment",
            category=sockets.CATEGORY,
            description="Draws the same prompts with the model before and after unlearning. It "
            "measures whether the concept is gone and everything else is still there.",
            is_output_node=True,
            inputs=inputs(),
            outputs=[
                sockets.Report.Output(
                    display_name="report",
                    tooltip="For Save Checkpoint, which stores the figures in the model's file.",
                ),
                io.Image.Output(
                    display_name="before/after grid",
                    tooltip="Pictures of the same prompts and seeds before and after, with labels.",
                ),
                io.String.Output(display_name="table", tooltip="The figures as text."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, scorer: str | None, probes: str | None, report_name: str | None
    ) -> bool | str:
        """Check the inputs before unlearning, which takes minutes. Choices from lists are included:
        ComfyUI does not check those that are arguments of this method."""
        try:
            if scorer is not None:  # None: a linked value, known only when the node runs
                scorer_path(scorer)
            if probes is not None:
                EvaluationSettings(probes=probes)
            if report_name is not None:
                check_name(report_name, "report_name")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, scorer: str | None, **_: object) -> object:
        """If the paper's CLIP was downloaded after the last run, the choice ``OWN_SCORER`` may now
        mean this CLIP."""
        return scorer == OWN_SCORER and PAPER_SCORER in scorers()

    @classmethod
    @checked
    def execute(
        cls,
        unlearned: UnlearnedModel,
        pictures: int,
        scorer: str,
        probes: str,
        report_name: str,
        seed: int,
        generation_steps: int,
        guidance_scale: float,
        batch_size: int,
    ) -> io.NodeOutput:
        check_name(report_name, "report_name")
        require_link("unlearned", unlearned, UnlearnedModel, "Restricted Gradient Unlearn")
        generation = GenerationSettings(generation_steps, guidance_scale, seed, batch_size)
        settings = EvaluationSettings(
            pictures, generation, scorer_for(unlearned.base, scorer), probes
        )
        # The unit is one set of pictures. Each of the two models draws one set for each of three
        # kinds of prompts, and one for each effort of a probe.
        efforts = sum(len(attack.efforts) for attack in ATTACKS[probes])
        costs = {EVALUATING: 6.0, PROBING: 2.0 * efforts, REPORTING: 0.3}
        progress = NodeProgress(costs)
        load(unlearned, ALL)  # some probes train
        # ComfyUI runs nodes in inference mode; tensors created in it cannot be used to train.
        with torch.inference_mode(False), torch.no_grad():
            report = evaluate(
                unlearned, settings, cache=LatentCache(cache_folder()), progress=progress
            )
            with progress.phase(REPORTING, 1):
                grid = as_image(comparison_grid(report))
                files = save_report(unlearned, report, report_name)
                page_report = for_page(report, files)
                progress.tick()
        figures = f"{summary(report)}\n\n{table(report)}"
        ui = {"text": [figures], "unlearn_report": [page_report]}
        return io.NodeOutput(report, grid, figures, ui=ui)
