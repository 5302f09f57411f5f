"""Load Model: the diffusion model that is to forget something."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
from comfy.model_management import get_torch_device
from comfy_api.latest import io

from ..unlearn_core.models.load import load_model, read_index
from ..unlearn_core.models.protocol import ModelHandle
from . import sockets
from .pictures import shown
from .places import BUNDLED, model_folder, model_names


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnLoadModel",
            display_name="Unlearn: Load Model",
            category=sockets.CATEGORY,
            description="Opens the diffusion model that is to forget something. The file itself "
            "is never changed.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=model_names(),
                    default=next(iter(BUNDLED)),
                    tooltip="The model to work on. EmojiCanvas, the default, comes with this pack, "
                    "is tiny and draws emoji in five styles: good for trying things out in "
                    "minutes. Your own Stable Diffusion models appear here when their diffusers "
                    "folder lies in ComfyUI's models/diffusers; larger ones need a GPU and time. "
                    "Only safetensors are opened, never pickles (.ckpt).",
                ),
            ],
            outputs=[
                sockets.Model.Output(display_name="model", tooltip="The model as it was loaded."),
                io.String.Output(display_name="info", tooltip="What was loaded, in words."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        if model is None:  # comes along a link, known only when the node runs
            return True
        try:
            read_index(model_folder(model))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None) -> object:
        """The same name may hold other weights by now: saving can overwrite a model."""
        if model is None:
            return None
        files = sorted(model_folder(model).rglob("*.safetensors"))
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        # ComfyUI runs nodes in inference mode, and weights made there can never be trained.
        with torch.inference_mode(False):
            handle = load_model(model_folder(model), get_torch_device())
        info = describe(handle)
        return io.NodeOutput(handle, info, ui=shown(cls, text=info))


def describe(model: ModelHandle) -> str:
    """Name, family, picture size, size of the denoiser and device, one line each."""
    parameters = sum(parameter.numel() for _, parameter in model.named_parameters())
    return "\n".join(
        (
            model.info.name,
            f"{model.info.family}, {model.info.image_size} × {model.info.image_size} px",
            f"{parameters / 1e6:.1f} million parameters to teach, on {model.device}",
            f"fingerprint {model.info.fingerprint[:12]}",
        )
    )
