"""Encoding of pictures to latents and decoding, with diffusers' ``AutoencoderKL``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Limits of a batch: pictures and pixels. A picture of 1024 px needs 3 GiB, more than a training
# step.
BATCH, PIXELS = 8, 2 * 512 * 512


def scale(vae: Any) -> int:
    """The ratio of a picture's edge to its latent's."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Mean and inverse standard deviation of the latents, numbers or per channel [1, C, 1, 1]."""
    mean: Tensor | float = vae.config.get("shift_factor") or 0.0
    factor: Tensor | float = vae.config["scaling_factor"]
    if vae.config.get("latents_mean") is not None:
        mean, spread = (
            torch.tensor(vae.config[name], device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
        factor = factor / spread
    return mean, factor


@torch.no_grad()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w] of about unit variance."""
    chunks = [
        vae.encode(part.to(vae.device, vae.dtype) * 2 - 1).latent_dist.mean
        for part in images.split(_batch_size(images.shape[2] * images.shape[3]))
    ]
    latents = torch.cat(chunks)
    mean, factor = _statistics(vae, latents)
    return (latents - mean) * factor


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
    mean, factor = _statistics(vae, latents)
    scaled = latents / factor + mean
    chunks = [
        vae.decode(part.to(vae.device, vae.dtype)).sample.float().cpu()
        for part in scaled.split(_batch_size(latents.shape[2] * latents.shape[3] * scale(vae) ** 2))
    ]
    return torch.cat(chunks).add(1).div(2).clamp(0, 1)


def _batch_size(pixels: int) -> int:
    """The number of pictures in a batch, given the pixels of one."""
    return max(1, min(BATCH, PIXELS // pixels))
