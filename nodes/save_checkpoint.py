"""Save Checkpoint: the unlearned model among ComfyUI's own models."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..unlearn_core.checkpoints import save_diffusers_folder
from ..unlearn_core.evaluation import AlignmentReport
from ..unlearn_core.unlearn import UnlearnedModel
from . import sockets
from .pictures import shown
from .places import save_folder


class SaveCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnSaveCheckpoint",
            display_name="Unlearn: Save Checkpoint",
            category=sockets.CATEGORY,
            description="Saves the unlearned model as a diffusers folder in ComfyUI's "
            "models/diffusers, ready to be loaded here or in any diffusers program.",
            is_output_node=True,
            inputs=[
                sockets.Result.Input("unlearned", tooltip="From Restricted Gradient Unlearn."),
                io.String.Input(
                    "name",
                    default="my-model-without-ink",
                    tooltip="Name of the new folder in ComfyUI's models/diffusers, "
                    "'my-model-without-ink' by default. A plain name without / or \\: nothing is "
                    "ever written outside that folder.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    label_on="replace a model of that name",
                    label_off="keep what is there",
                    tooltip="Off by default: a name that is taken is refused, before any work "
                    "starts. On: the model of that name is replaced, and cannot be had back.",
                ),
                sockets.Report.Input(
                    "report",
                    optional=True,
                    tooltip="From Evaluate Alignment, if you like: its figures are stored beside "
                    "the model.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the model was saved."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None, overwrite: bool | None) -> bool | str:
        """Now rather than after the minutes that unlearning takes."""
        if name is None:  # comes along a link, known only when the node runs
            return True
        try:
            folder = save_folder(name)
        except ValueError as error:
            return str(error)
        if folder.exists() and overwrite is False:
            return (
                f"name: {name!r} exists already in models/diffusers, "
                "choose another name or switch overwrite on"
            )
        return True

    @classmethod
    def execute(
        cls,
        unlearned: UnlearnedModel,
        name: str,
        overwrite: bool,
        report: AlignmentReport | None = None,
    ) -> io.NodeOutput:
        folder = save_folder(name)
        with torch.inference_mode(False):
            path = save_diffusers_folder(unlearned, folder, overwrite=overwrite, report=report)
        return io.NodeOutput(str(path), ui=shown(cls, text=f"Saved to {path}"))
