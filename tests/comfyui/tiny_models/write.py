"""The files of a tiny model, written into the server's model folders."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.supported_models
import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import save_file
from torch import Tensor, nn

from .sizes import MODELS, Encoder, Sizes

DTYPE = torch.bfloat16  # of most published files


class WriteFiles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyWriteFiles",
            inputs=[io.Combo.Input("name", options=list(MODELS))],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        sizes = MODELS[name]
        _save(f"diffusion_models/{name}", _denoiser(sizes), {
            "architecture": sizes.architecture, "config": json.dumps(sizes.unet),
        })  # fmt: skip
        for file, encoder in sizes.encoders.items():
            _save(f"text_encoders/{file}", _text_encoder(encoder), {
                "name": encoder.name, "config": json.dumps(encoder.config),
            })  # fmt: skip
        for file, build in sizes.vae.items():
            with torch.device("meta"):
                network = build()
            _save(file, network, {})
        return io.NodeOutput()


def _denoiser(sizes: Sizes) -> nn.Module:
    config = getattr(comfy.supported_models, sizes.architecture)(dict(sizes.unet))
    config.set_inference_dtype(DTYPE, None)
    return config.get_model({}, "", device=torch.device("meta")).diffusion_model


def _text_encoder(encoder: Encoder) -> nn.Module:
    options: dict[str, Any] = {
        "model_name": encoder.name,
        f"{encoder.name}_model_config": encoder.config,
        "custom_operations": comfy.ops.disable_weight_init,
    }
    network = encoder.model(device="meta", dtype=DTYPE, model_options=options).transformer
    if hasattr(network, "visual"):  # it reads pictures; its size is fixed
        del network.visual
    return network


def _save(name: str, network: nn.Module, metadata: Mapping[str, str]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: _random(key, tensor.shape, generator) for key, tensor in network.state_dict().items()
    }
    file = Path(folder_paths.models_dir) / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, dict(metadata))


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights with which activations neither vanish nor explode."""
    if len(shape) < 2:
        one = name.endswith(("weight", "scale", "gamma"))
        return torch.full(shape, 1.0 if one else 0.0, dtype=DTYPE)
    spread = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(spread).to(DTYPE)
