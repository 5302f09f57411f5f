"""A Stable Diffusion 1.5 of random weights with a narrow U-Net, as ComfyUI's loader reads it."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..pack import COMFYUI  # makes ComfyUI's modules importable

# isort: split
import comfy.ops
import comfy.sd
import comfy.sd1_clip
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

assert COMFYUI
UNET: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 0],
    "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 0, 0],
    "use_spatial_transformer": True, "legacy": False, "num_heads": 8, "num_head_channels": -1,
    "context_dim": 768,
}  # fmt: skip
VAE: dict[str, Any] = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
    "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
    "dropout": 0.0,
}  # fmt: skip


def narrow_sd15() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE from a checkpoint of 0.4 GB, in memory."""
    with torch.device("meta"):
        unet = UNetModel(**UNET, operations=comfy.ops.disable_weight_init)
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
        clip = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16)
    shapes = {f"model.diffusion_model.{k}": v.shape for k, v in unet.state_dict().items()}
    shapes |= {f"first_stage_model.{k}": v.shape for k, v in vae.state_dict().items()}
    shapes |= {
        k.replace("clip_l.", "cond_stage_model."): v.shape
        for k, v in clip.state_dict().items()
        if k.startswith("clip_l.transformer.text_model.")
    }
    generator = torch.Generator().manual_seed(0)
    weights = {name: _random(name, shape, generator) for name, shape in shapes.items()}
    with torch.inference_mode():
        loaded: Any = comfy.sd.load_state_dict_guess_config(weights)
    return loaded[:3]


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights with which activations have about unit variance."""
    values = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        values = 0.05 * values + (1.0 if name.endswith("weight") else 0.0)
    elif "embedding" in name:
        values = 0.02 * values
    else:
        values = values / math.sqrt(math.prod(shape[1:]))
    return values.half()
