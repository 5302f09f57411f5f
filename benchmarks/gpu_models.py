"""Stable Diffusion 1.5, SDXL and Flux.1-dev of random weights, at full width and small, without
text encoders and autoencoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, FluxTransformer2DModel, UNet2DConditionModel
from torch import nn

from unlearn_core.models.denoiser import NoiseSchedule
from unlearn_core.models.families import FAMILIES
from unlearn_core.models.flow import PATCH, schedule_of
from unlearn_core.models.flux import FluxHandle
from unlearn_core.models.protocol import Embeddings, ModelHandle, ModelInfo
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.models.weights import vectors_to_fp32

WEIGHTS = torch.bfloat16
LEVELS = (128, 256, 512, 512)  # widths of both autoencoders
DOWNSCALE = 2 ** (len(LEVELS) - 1)
SD_1, SDXL = (family for family in FAMILIES if family.name in ("sd1", "sdxl"))
FLUX_SCHEDULER = {
    "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096,
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model.

    Attributes:
        denoiser: settings of diffusers' class.
        tokens, width, pooled: an encoded prompt is [tokens, width] and [pooled]; without pooled
            embeddings, ``pooled`` is 0.
        image_size: edge of a picture in pixels.
    """

    denoiser: Mapping[str, Any]
    tokens: int
    width: int
    pooled: int
    image_size: int = 1024


FULL_SD_1 = Sizes(
    {**SD_1.unet, "block_out_channels": (320, 640, 1280, 1280)},
    tokens=77,
    width=768,
    pooled=0,
    image_size=512,
)
FULL_SDXL = Sizes(
    {**SDXL.unet, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20)},
    tokens=77,
    width=2048,
    pooled=1280,
)
FULL_FLUX = Sizes(
    {
        "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
        "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56), "joint_attention_dim": 4096,
        "pooled_projection_dim": 768, "guidance_embeds": True,
    },
    tokens=512,
    width=4096,
    pooled=768,
)  # fmt: skip
SMALL_SD_1 = Sizes(
    {
        **SD_1.unet, "block_out_channels": (32, 64, 64, 64), "attention_head_dim": 2,
        "layers_per_block": 1, "cross_attention_dim": 64,
    },
    tokens=77,
    width=64,
    pooled=0,
    image_size=64,
)  # fmt: skip
SMALL_SDXL = Sizes(
    {
        **SDXL.unet, "block_out_channels": (32, 64, 64), "attention_head_dim": (1, 2, 2),
        "layers_per_block": 1, "transformer_layers_per_block": (1, 1, 1),
        "cross_attention_dim": 64, "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
    tokens=77,
    width=64,
    pooled=32,
    image_size=64,
)  # fmt: skip
SMALL_FLUX = Sizes(
    {
        **FULL_FLUX.denoiser, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32,
        "num_attention_heads": 2, "axes_dims_rope": (8, 12, 12), "joint_attention_dim": 64,
        "pooled_projection_dim": 32,
    },
    tokens=32,
    width=64,
    pooled=32,
    image_size=64,
)  # fmt: skip


@dataclass(frozen=True)
class RandomText:
    """Random embeddings in place of text encoders."""

    sizes: Sizes
    clips: tuple[()] = ()
    t5: bool = True  # as in Flux: no token of the output belongs to one word

    def networks(self) -> tuple[()]:
        return ()

    def encode(self, prompts: Sequence[str]) -> Embeddings:
        count, sizes = len(prompts), self.sizes
        pooled = torch.randn(count, sizes.pooled) if sizes.pooled else None
        return Embeddings(torch.randn(count, sizes.tokens, sizes.width), pooled)


class Autoencoder(nn.Module):
    """The settings of an autoencoder that is not loaded."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config


def sd_1(sizes: Sizes, device: torch.device) -> ModelHandle:
    return _stable_diffusion("sd1", sizes, device)


def sdxl(sizes: Sizes, device: torch.device) -> ModelHandle:
    return _stable_diffusion("sdxl", sizes, device)


def _stable_diffusion(family: str, sizes: Sizes, device: torch.device) -> ModelHandle:
    scheduler: Any = DDPMScheduler.from_config(dict(SDXL.scheduler))
    return StableDiffusionHandle(
        schedule=NoiseSchedule(scheduler.alphas_cumprod, "epsilon"),
        scheduler_config=dict(scheduler.config),
        **_parts(family, sizes, "epsilon", 4, _random(UNet2DConditionModel, sizes, device)),
    )


def flux(sizes: Sizes, device: torch.device) -> ModelHandle:
    tokens = (sizes.image_size // DOWNSCALE // PATCH) ** 2
    return FluxHandle(
        schedule=schedule_of(FLUX_SCHEDULER, tokens),
        scheduler_config=dict(FLUX_SCHEDULER),
        **_parts("flux", sizes, "flow", 16, _random(FluxTransformer2DModel, sizes, device)),
    )


Build = Callable[[Sizes, torch.device], ModelHandle]
MODELS: dict[str, tuple[Build, Sizes, Sizes]] = {
    "SDXL": (sdxl, FULL_SDXL, SMALL_SDXL),
    "Flux.1-dev": (flux, FULL_FLUX, SMALL_FLUX),
}
"""The function that builds a model, and its full and small sizes."""


def _parts(
    family: str, sizes: Sizes, prediction: str, channels: int, denoiser: Any
) -> dict[str, Any]:
    """The fields that both kinds of handles have."""
    info = ModelInfo(family, family, None, "", sizes.image_size, prediction, "", mixed=True)
    vae = Autoencoder({"block_out_channels": LEVELS, "latent_channels": channels})
    parts = {"info": info, "denoiser": denoiser, "base": denoiser, "vae": vae}
    return {**parts, "text": RandomText(sizes)}


def _random(kind: Any, sizes: Sizes, device: torch.device) -> Any:
    """A frozen denoiser with diffusers' random initial weights, created on the device."""
    with _default_dtype(WEIGHTS), device:
        network = kind(**sizes.denoiser)
    vectors_to_fp32(network)
    return network.requires_grad_(False).eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
