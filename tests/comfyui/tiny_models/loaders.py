"""ComfyUI's loading of models, with sizes from the files.

ComfyUI recognises these architectures by their published sizes, and takes numbers of heads and the
sizes of the text encoders for granted. Only this is replaced here.
"""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_detection
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io


class TinyUnetLoader(io.ComfyNode):
    """Load Diffusion Model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyUNETLoader",
            inputs=[
                io.String.Input("unet_name"),
                io.Combo.Input("weight_dtype", options=["default", "fp8_e4m3fn"]),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        metadata = _metadata(path)
        architecture = getattr(comfy.supported_models, metadata["architecture"])
        config = architecture(json.loads(metadata["config"]))
        with _recognised(config):
            options = {} if weight_dtype == "default" else {"dtype": torch.float8_e4m3fn}
            return io.NodeOutput(comfy.sd.load_diffusion_model(path, model_options=options))


@contextmanager
def _recognised(config: Any) -> Iterator[None]:
    detection: Any = comfy.model_detection
    own = detection.model_config_from_unet
    detection.model_config_from_unet = lambda *_, **__: config
    try:
        yield
    finally:
        detection.model_config_from_unet = own


class TinyClipLoader(io.ComfyNode):
    """Load CLIP or, with two names separated by a comma, DualCLIPLoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyCLIPLoader",
            inputs=[io.String.Input("clip_names"), io.String.Input("type")],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip_names: str, type: str) -> io.NodeOutput:
        paths = [
            folder_paths.get_full_path_or_raise("text_encoders", name)
            for name in clip_names.split(", ")
        ]
        sizes = {}
        for metadata in map(_metadata, paths):
            name = metadata["name"]
            # ComfyUI overwrites the specific one of CLIP-L by the general one.
            option = "model_config" if name == "clip_l" else f"{name}_model_config"
            sizes[option] = json.loads(metadata["config"])
        kind = getattr(comfy.sd.CLIPType, type.upper())
        clip: Any = comfy.sd.load_clip(paths, clip_type=kind, model_options=sizes)
        for part in clip.cond_stage_model.modules():
            if hasattr(part, "visual"):  # it reads pictures; its size is fixed
                del part.visual
        clip.patcher.size = 0  # was measured before
        return io.NodeOutput(clip)


def _metadata(path: str) -> dict[str, str]:
    loaded: Any = comfy.utils.load_torch_file(path, return_metadata=True)
    return loaded[1]
