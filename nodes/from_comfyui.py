"""From ComfyUI: the MODEL, CLIP and VAE of any loader as a model to unlearn from."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearn_core.models.options import LARGEST_IMAGE
from .inputs import sockets
from .inputs.links import Clip, Vae, require_link
from .inputs.values import checked
from .native.handle import NativeHandle
from .native.opening import open_native


class FromComfyUI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnFromComfyUI",
            display_name="Unlearn: From ComfyUI",
            category=sockets.CATEGORY,
            description="Takes the model of any of ComfyUI's loaders, also with LoRAs applied and "
            "in fp8: Stable Diffusion, Flux, Z-Image, Qwen-Image and others that draw pictures. "
            "The linked model itself is never changed.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that should forget, from Load Checkpoint, Load Diffusion "
                    "Model or a node after them. LoRAs and ModelSampling nodes may come before. "
                    "GGUF, video and inpainting models are not supported.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="The model's text encoders, from Load Checkpoint or Load CLIP.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Optional: the model's VAE. Training works without it, but there are "
                    "no previews, no evaluation and no Own Pictures.",
                ),
                io.Int.Input(
                    "image_size",
                    default=0,
                    min=0,
                    max=LARGEST_IMAGE,
                    step=64,
                    tooltip="Width and height of the pictures in pixels; 0 is the usual size of "
                    "this kind of model. A smaller size needs less memory and time, but gives "
                    "worse pictures. Default: 0.",
                ),
            ],
            outputs=[
                sockets.Model.Output(
                    display_name="model", tooltip="The model, for Restricted Gradient Unlearn."
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="Kind and size of the model, and the usual settings for drawing.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model: ModelPatcher, clip: Any, image_size: int, vae: Any = None
    ) -> io.NodeOutput:
        require_link("model", model, ModelPatcher, "a loader's MODEL")
        require_link("clip", clip, Clip, "a loader's CLIP")
        if vae is not None:
            require_link("vae", vae, Vae, "a loader's VAE")
        # ComfyUI runs nodes in inference mode; tensors made in it cannot be trained.
        with torch.inference_mode(False):
            handle = open_native(model, clip, vae, image_size)
        info = describe(handle)
        return io.NodeOutput(handle, info, ui={"text": [info]})


def describe(handle: NativeHandle) -> str:
    """Name, kind, size, usual settings and device, one line each."""
    info, family = handle.info, handle.network.family
    parameters = sum(parameter.numel() for _, parameter in handle.named_parameters())
    lines = [
        info.name,
        f"{family.label}, predicts {info.prediction}, {info.image_size} × {info.image_size} px",
        f"{parameters / 1e6:.1f} million parameters, on {handle.device}",
        f"draws well with guidance_scale {family.guidance_scale:g} and "
        f"{family.steps} generation_steps",
        f"scope auto: {handle.default_scope}",
        f"fingerprint {info.fingerprint[:12]}",
    ]
    if handle.vae is None:
        lines.append("no VAE linked: no previews, no evaluation")
    return "\n".join(lines)
