"""ComfyUI's VAE from a small ``AutoencoderKL`` of diffusers."""

from __future__ import annotations

import re
from typing import Any

import comfy.diffusers_convert
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor, nn

STOCK_GROUPS = 32  # of all group norms in ComfyUI's autoencoder
STOCK_LEVELS = 4  # of resolution, in the autoencoders whose names ComfyUI converts


class Width:
    """A channel multiplier for ComfyUI's networks whose product with any base is ``channels``: some
    widths here are no whole multiple of the first."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __mul__(self, base: int) -> int:
        return self.channels

    __rmul__ = __mul__


def build_vae(settings: dict[str, Any], weights: dict[str, Tensor]) -> comfy.sd.VAE:
    """Build the VAE from the settings and weights of the folder ``vae`` of a pipeline.

    It computes in fp32. It is so small that 16 bits would save nothing.
    """
    widths, groups = settings["block_out_channels"], settings["norm_num_groups"]
    converted = comfy.diffusers_convert.convert_vae_state_dict(weights)
    missing_levels = STOCK_LEVELS - len(widths)
    converted = {
        re.sub(r"\.up\.(\d)\.", lambda m: f".up.{int(m[1]) - missing_levels}.", name): weight
        for name, weight in converted.items()
    }
    # At first wide enough for 32 groups, because ComfyUI always has that number.
    wide = [width * STOCK_GROUPS // groups for width in widths]
    parameters = {
        "embed_dim": settings["latent_channels"],
        "ddconfig": {
            "double_z": True,
            "z_channels": settings["latent_channels"],
            "resolution": settings["sample_size"],
            "in_channels": settings["in_channels"],
            "out_ch": settings["out_channels"],
            "ch": wide[0],
            "ch_mult": [Width(width) for width in wide],
            "num_res_blocks": settings["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }
    stock_weights = AutoencoderKL(**parameters).state_dict()  # without them, it logs a warning
    vae = comfy.sd.VAE(sd=stock_weights, config={"params": parameters}, dtype=torch.float32)
    vae.downscale_ratio = vae.upscale_ratio = 2 ** (len(widths) - 1)
    vae.latent_channels = settings["latent_channels"]
    network: Any = vae.first_stage_model
    _shrink(network, converted, groups)
    network.load_state_dict(converted)
    network.eval()
    vae.size = None  # was measured before
    vae.model_size()
    return vae


def _shrink(network: nn.Module, weights: dict[str, Tensor], groups: int) -> None:
    """Replace convolutions and norms by smaller ones that fit the weights. Attention in the middle
    and the quantisation convolutions are optional: without weights they become the identity."""
    for name in ("encoder.mid.attn_1", "decoder.mid.attn_1", "quant_conv", "post_quant_conv"):
        if not any(key.startswith(f"{name}.") for key in weights):
            comfy.utils.set_attr(network, name, nn.Identity())
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d):
            outputs, inputs = weights[f"{name}.weight"].shape[:2]
            size, stride, padding = layer.kernel_size, layer.stride, layer.padding
            new = type(layer)(inputs, outputs, size, stride, padding)  # pyright: ignore
        elif isinstance(layer, nn.GroupNorm):
            new = type(layer)(groups, len(weights[f"{name}.weight"]), layer.eps)
        else:
            continue
        comfy.utils.set_attr(network, name, new)
