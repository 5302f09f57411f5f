"""Save Checkpoint: the unlearned model among ComfyUI's own models."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from comfy.cli_args import args
from comfy_api.latest import io

from ..unlearn_core.evaluation.results import AlignmentReport
from ..unlearn_core.foundation.progress import EXTRACTING, SAVING
from ..unlearn_core.reporting.report import report_json
from ..unlearn_core.saving.diffusers_folder import save_diffusers_folder
from ..unlearn_core.saving.lora import save_lora
from ..unlearn_core.saving.single_file import save_single_file
from ..unlearn_core.unlearning.results import UnlearnedModel
from .host.folders import AS_LOADED, CHECKPOINT, FOLDER, LORA, SAVE_AS, save_paths
from .host.memory import load
from .host.progress import NodeProgress
from .inputs import sockets

LORA_RANK = 32
EXTRACTION = 9  # times the cost of writing the file


class SaveCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnSaveCheckpoint",
            display_name="Unlearn: Save Checkpoint",
            category=sockets.CATEGORY,
            description="Saves the unlearned model among ComfyUI's own models, as the checkpoint "
            "that it came from, as a LoRA, or as a diffusers folder: ready to be loaded here or "
            "in any other Stable Diffusion program.",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                sockets.Result.Input("unlearned", tooltip="From Restricted Gradient Unlearn."),
                io.String.Input(
                    "name",
                    default="my-model-without-ink",
                    tooltip="Name of the new model, 'my-model-without-ink' by default. A plain "
                    "name without / or \\: nothing is ever written outside ComfyUI's folders.",
                ),
                io.Combo.Input(
                    "save_as",
                    options=list(SAVE_AS),
                    default=AS_LOADED,
                    tooltip=f"{AS_LOADED!r}, the default: a checkpoint where it came as one file, "
                    "with nothing but the changed weights replaced, else a diffusers folder. "
                    f"{LORA!r}: a small file in models/loras, to be added to the original model at "
                    "any strength.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    label_on="replace",
                    label_off="keep",
                    tooltip="Off by default: under a name that is taken nothing is saved, which "
                    "the page says when you press Run; the other nodes run, and nothing is "
                    "lost. On: the model of that name is replaced, and cannot be had back. The "
                    "model that you started from is never replaced.",
                ),
                sockets.Report.Input(
                    "report",
                    optional=True,
                    tooltip="From Evaluate Alignment, if you like: its figures are stored in the "
                    "file.",
                ),
                sockets.advanced(
                    io.Int.Input(
                        "lora_rank",
                        default=LORA_RANK,
                        min=1,
                        max=1024,
                        tooltip=f"Rank of the LoRA, {LORA_RANK} by default. Higher holds more of "
                        "the change in a larger file. What was unlearned with the scope 'lora' "
                        "keeps the rank it has.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the model was saved."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, name: str | None, save_as: str | None, overwrite: bool | None
    ) -> bool | str:
        """Now rather than after the minutes that unlearning takes."""
        if name is None or save_as is None:  # comes along a link, known only when the node runs
            return True
        try:
            paths = save_paths(name, save_as)
        except ValueError as error:
            return str(error)
        taken = [path for path in paths.values() if path.exists()]
        if taken and overwrite is False:
            return (
                f"name: {name!r} exists already in models/{taken[0].parent.name}, "
                "choose another name or switch overwrite on"
            )
        return True

    @classmethod
    def execute(
        cls,
        unlearned: UnlearnedModel,
        name: str,
        save_as: str,
        overwrite: bool,
        lora_rank: int,
        report: AlignmentReport | None = None,
    ) -> io.NodeOutput:
        if report is not None:
            judged = [part.concept.name for part in report.each]
            forgotten = [part.concept.name for part in unlearned.pairs.each]
            if judged != forgotten:
                raise ValueError(
                    f"report: it is about {' and '.join(map(repr, judged))}, and the model was to "
                    f"forget {' and '.join(map(repr, forgotten))}; link its own Evaluate Alignment"
                )
        paths = save_paths(name, save_as)
        kind = save_as
        if kind == AS_LOADED:
            kind = CHECKPOINT if unlearned.base.info.source.is_file() else FOLDER
        load(unlearned)  # both: saving compares their weights on one device
        with torch.inference_mode(False), torch.no_grad():
            facts = report_json(unlearned, report, {})
            path, note = cls._save(unlearned, kind, paths[kind], lora_rank, overwrite, facts)
        return io.NodeOutput(str(path), ui={"text": [f"Saved to {path}{note}"]})

    @classmethod
    def _save(
        cls,
        unlearned: UnlearnedModel,
        kind: str,
        path: Path,
        lora_rank: int,
        overwrite: bool,
        report: Mapping[str, Any],
    ) -> tuple[Path, str]:
        options: dict[str, Any] = {"overwrite": overwrite, "report": report}
        options["progress"] = NodeProgress({EXTRACTING: EXTRACTION, SAVING: 1})
        if kind != LORA:
            options["progress"] = NodeProgress({SAVING: 1})
        if kind == FOLDER:
            return save_diffusers_folder(unlearned, path, **options), ""
        options["metadata"] = cls._workflow()
        if kind == CHECKPOINT:
            return save_single_file(unlearned, path, **options), ""
        saved = save_lora(unlearned, path, rank=lora_rank, **options)
        note = f"\nrank {saved.rank}, holds {100 * saved.captured:.1f} % of the change"
        return saved.path, note

    @classmethod
    def _workflow(cls) -> dict[str, str]:
        """The graph, as ComfyUI's own savers write it, unless the person has switched that off."""
        if args.disable_metadata:
            return {}
        graph = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}
