"""Save Checkpoint: the unlearned model among ComfyUI's own models."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
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
from ..unlearn_core.foundation.own_files import is_own
from ..unlearn_core.foundation.progress import EXTRACTING, SAVING
from ..unlearn_core.models.rounding import measure_rounding
from ..unlearn_core.reporting.report import report_json
from ..unlearn_core.saving.diffusers_folder import save_diffusers_folder
from ..unlearn_core.saving.lora import save_lora
from ..unlearn_core.saving.single_file import save_single_file
from ..unlearn_core.unlearning.results import UnlearnedModel
from .host.folders import AS_LOADED, CHECKPOINT, FOLDER, LORA, SAVE_AS, save_paths
from .host.graph import values_before
from .host.memory import load
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.links import require_link
from .inputs.values import checked
from .native.handle import NativeHandle
from .native.saving import LORA_NAMES, Saving, check_lora_names, save_native
from .page.stored_runs import after_saving

LORA_RANK = 32
COMFYUI_NAMES = next(iter(LORA_NAMES))
EXTRACTION = 9  # cost of the approximation, in units of the cost of writing the file


class SaveCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnSaveCheckpoint",
            display_name="Unlearn: Save Checkpoint",
            category=sockets.CATEGORY,
            description="Saves the unlearned model in ComfyUI's model folders: as a checkpoint, a "
            "LoRA or a diffusers folder. You can load it here or in any other Stable Diffusion "
            "program.",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            inputs=[
                sockets.Result.Input("unlearned", tooltip="From Restricted Gradient Unlearn."),
                io.String.Input(
                    "name",
                    default="my-model-without-ink",
                    tooltip="Name of the new model, without / or \\. Nothing is ever written "
                    "outside ComfyUI's folders. Default: my-model-without-ink.",
                ),
                io.Combo.Input(
                    "save_as",
                    options=list(SAVE_AS),
                    default=AS_LOADED,
                    tooltip="The format of the saved model. "
                    f"{AS_LOADED!r}: a checkpoint if Load Model read the model from one file, "
                    "a diffusers folder if it read a folder, and a LoRA if the model is from From "
                    "ComfyUI. In the checkpoint only the changed weights are replaced. "
                    f"{LORA!r}: a small file in models/loras. Load LoRA adds it to the original "
                    f"model at any strength. Default: {AS_LOADED}.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    label_on="replace",
                    label_off="keep",
                    tooltip="Off: if a model with this name exists, nothing is saved, and you see "
                    "a message when you press Run. The other nodes still run, and nothing is lost. "
                    "On: a model that this node saved earlier is replaced and cannot be restored. "
                    "No other model is ever replaced. Default: off.",
                ),
                sockets.Report.Input(
                    "report",
                    optional=True,
                    tooltip="Optional, from Evaluate Alignment. Its figures are stored in the "
                    "file.",
                ),
                sockets.advanced(
                    io.Int.Input(
                        "lora_rank",
                        default=LORA_RANK,
                        min=1,
                        max=1024,
                        tooltip="Rank of the LoRA. A higher rank contains more of the change, but "
                        "gives a larger file. A model that was unlearned with the scope 'lora' "
                        f"keeps its own rank. Default: {LORA_RANK}.",
                    )
                ),
                sockets.advanced(
                    io.Combo.Input(
                        "lora_names",
                        options=list(LORA_NAMES),
                        default=COMFYUI_NAMES,
                        tooltip="Names of the layers in the LoRA of a model from From ComfyUI. "
                        "ComfyUI's Load LoRA reads them all. 'kohya' is for most other programs. "
                        "'diffusers' is for diffusers and ai-toolkit, where the model is a "
                        "transformer such as Flux. No effect on a model from Load Model. "
                        f"Default: {COMFYUI_NAMES}.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="The path of the saved model."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        name: str | None,
        save_as: str | None,
        overwrite: bool | None,
        lora_names: str | None = COMFYUI_NAMES,
    ) -> bool | str:
        """Check the name before unlearning, which takes minutes."""
        if name is None or save_as is None:  # a linked value, known only when the node runs
            return True
        try:
            paths = save_paths(name, save_as)
            if lora_names is not None:
                check_lora_names(lora_names)
        except ValueError as error:
            return str(error)
        existing = [path for path in paths.values() if path.exists()]
        others = [path for path in existing if not is_own(path)]
        if others and len(paths) == 1:
            return (
                f"name: {name!r} in models/{others[0].parent.name} was not saved by Unlearn, so "
                "it is never overwritten; choose another name"
            )
        if existing and overwrite is False:
            return (
                f"name: {name!r} exists already in models/{existing[0].parent.name}; "
                "choose another name or switch overwrite on"
            )
        return True

    @classmethod
    @checked
    def execute(
        cls,
        unlearned: UnlearnedModel,
        name: str,
        save_as: str,
        overwrite: bool,
        lora_rank: int,
        lora_names: str = COMFYUI_NAMES,
        report: AlignmentReport | None = None,
    ) -> io.NodeOutput:
        paths = save_paths(name, save_as)
        require_link("unlearned", unlearned, UnlearnedModel, "Restricted Gradient Unlearn")
        if report is not None:
            require_link("report", report, AlignmentReport, "Evaluate Alignment")
            evaluated = [part.concept.name for part in report.each]
            unlearned_concepts = [part.concept.name for part in unlearned.pairs.each]
            if evaluated != unlearned_concepts:
                raise ValueError(
                    f"report must be about {' and '.join(map(repr, unlearned_concepts))}, which "
                    f"this model forgot, got one about {' and '.join(map(repr, evaluated))}; "
                    "link the Evaluate Alignment node of this model"
                )
        native = unlearned.model if isinstance(unlearned.model, NativeHandle) else None
        kind = _as_loaded(unlearned) if save_as == AS_LOADED else save_as
        path, note = paths[kind], ""
        with torch.inference_mode(False), torch.no_grad():
            content = report_json(unlearned, report)
            if native is None:
                # Including its base: saving compares the weights of both on one device.
                load(unlearned)
                path, note = cls._save(unlearned, kind, path, lora_rank, overwrite, content)
            else:
                cls._refuse_loaded(path)
                progress = _progress(kind)
                saving = Saving(
                    lora_names, lora_rank, overwrite, content, cls._workflow(), progress
                )
                note = save_native(unlearned, native, kind, path, saving)
        after_saving(unlearned)
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
        options["progress"] = _progress(kind)
        if kind == FOLDER:
            path = save_diffusers_folder(unlearned, path, **options)
            return path, _rounding(unlearned)
        options["metadata"] = cls._workflow()
        if kind == CHECKPOINT:
            path = save_single_file(unlearned, path, **options)
            return path, _rounding(unlearned)
        lora = save_lora(unlearned, path, rank=lora_rank, **options)
        note = f"\nrank {lora.rank}, captures {100 * lora.captured:.1f} % of the change"
        return lora.path, note

    @classmethod
    def _refuse_loaded(cls, path: Path) -> None:
        """Refuse to replace a file that the model was loaded from: a MODEL does not know its own.

        Raises:
            FileExistsError: a node before this one loads the file.
        """
        if path.exists() and path.name in values_before(cls.hidden.prompt, cls.hidden.unique_id):
            raise FileExistsError(
                f"name: {path.name!r} is a file that this workflow loads, which is never "
                "overwritten; choose another name"
            )

    @classmethod
    def _workflow(cls) -> dict[str, str]:
        """The graph, in the format of ComfyUI's own save nodes; empty with --disable-metadata."""
        if args.disable_metadata:
            return {}
        graph = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}


def _as_loaded(unlearned: UnlearnedModel) -> str:
    if isinstance(unlearned.model, NativeHandle):
        return LORA
    source = unlearned.base.info.source
    return CHECKPOINT if source is not None and source.is_file() else FOLDER


def _rounding(unlearned: UnlearnedModel) -> str:
    rounding = measure_rounding(unlearned.model, unlearned.base)
    return "" if rounding is None else f"\n{rounding}"


def _progress(kind: str) -> NodeProgress:
    return NodeProgress({EXTRACTING: EXTRACTION, SAVING: 1} if kind == LORA else {SAVING: 1})
