"""Stable Diffusion 1.5 and SDXL of random weights, with text encoders and autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from demo.jobs import EMOJI
from unlearn_core.models.denoiser import NoiseSchedule
from unlearn_core.models.families import FAMILIES, Family, TextPart
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelInfo
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.models.text import Clip, ClipPairText, ClipText, clip_tokenizer
from unlearn_core.models.weights import vectors_to_fp32

BLOCKS = {"sd1": (320, 640, 1280, 1280), "sdxl": (320, 640, 1280)}
HEADS = {"sd1": (8, 8, 8, 8), "sdxl": (5, 10, 20)}  # in each level; "sd1" keeps its number


@dataclass(frozen=True)
class Size:
    """Divisors of the widths of the published model, and its depth.

    Attributes:
        unet, vae, text: divisors of the widths of the networks.
        layers: of each level of the denoiser and the autoencoder.
        text_layers: the largest number of layers of a text encoder.
        image_size: edge of a picture in pixels; None for the family's own.
    """

    unet: int = 1
    vae: int = 1
    text: int = 1
    layers: int = 2
    text_layers: int = 99
    image_size: int | None = None


FULL, HALF = Size(), Size(unet=2, vae=2, text=2)
SMALL = Size(unet=10, vae=4, text=16, layers=1, text_layers=2, image_size=64)


def stable_diffusion(family_name: str, size: Size, device: torch.device) -> StableDiffusionHandle:
    """A model of random weights, created on the device."""
    family = next(family for family in FAMILIES if family.name == family_name)
    mixed = LoadOptions().is_mixed(family_name == "sdxl", device)
    with device:
        parts = {"denoiser": _unet(family, size), "vae": _vae(family, size)}
        clips = tuple(_clip(part, size, second=i == 1) for i, part in enumerate(family.text))
    networks: list[nn.Module] = [*parts.values(), *(clip.encoder for clip in clips)]
    for network in networks:
        network.requires_grad_(False).eval()
        if mixed:
            vectors_to_fp32(network.to(torch.bfloat16))
    scheduler: Any = DDPMScheduler.from_config(dict(family.scheduler))
    edge = size.image_size or family.image_size
    return StableDiffusionHandle(
        info=ModelInfo(family_name, family_name, None, "", edge, "epsilon", "", mixed=mixed),
        base=parts["denoiser"],
        schedule=NoiseSchedule(scheduler.alphas_cumprod, "epsilon"),
        scheduler_config=dict(scheduler.config),
        text=ClipText(clips) if len(clips) == 1 else ClipPairText(clips),
        **parts,
    )


def demo(size: Size, device: torch.device) -> Any:
    """EmojiCanvas, which has only one size."""
    return load_model(EMOJI, device=device)


Build = Callable[[Size, torch.device], Any]
MODELS: dict[str, tuple[Build, Size]] = {
    "demo": (demo, FULL),
    "sd15": (lambda size, device: stable_diffusion("sd1", size, device), FULL),
    "sd15-half": (lambda size, device: stable_diffusion("sd1", size, device), HALF),
    "sdxl": (lambda size, device: stable_diffusion("sdxl", size, device), FULL),
    "sdxl-half": (lambda size, device: stable_diffusion("sdxl", size, device), HALF),
}
"""The function that builds a model, and its size. *half* has networks of half the width, so that
every way fits into 24 GB."""


def _unet(family: Family, size: Size) -> Any:
    heads = HEADS[family.name]
    settings: dict[str, Any] = {
        **family.unet,
        "block_out_channels": tuple(width // size.unet for width in BLOCKS[family.name]),
        "layers_per_block": size.layers,
        "cross_attention_dim": family.context // size.text,
    }
    if family.pooled is not None:
        sizes = 6 * family.unet["addition_time_embed_dim"]
        pooled = (family.pooled - sizes) // size.text
        settings["projection_class_embeddings_input_dim"] = pooled + sizes
        heads = tuple(max(1, count // size.unet) for count in heads)
    settings["attention_head_dim"] = heads  # diffusers' name for the number of heads
    return UNet2DConditionModel(**settings)


def _vae(family: Family, size: Size) -> Any:
    widths = tuple(width // size.vae for width in family.vae["block_out_channels"])
    settings: dict[str, Any] = {
        **family.vae, "block_out_channels": widths, "layers_per_block": size.layers,
    }  # fmt: skip
    return AutoencoderKL(**settings)


def _clip(part: TextPart, size: Size, *, second: bool) -> Clip:
    settings = dict(part.config)
    for name in ("hidden_size", "intermediate_size", "projection_dim"):
        settings[name] //= size.text
    settings["num_attention_heads"] = max(1, settings["num_attention_heads"] // size.text)
    settings["num_hidden_layers"] = min(size.text_layers, settings["num_hidden_layers"])
    kind: Any = CLIPTextModelWithProjection if second else CLIPTextModel
    return Clip(
        kind(CLIPTextConfig(**settings, eos_token_id=49407)), clip_tokenizer(part.pad_token)
    )
