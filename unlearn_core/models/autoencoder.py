"""Pictures to latents and back, with diffusers' ``AutoencoderKL``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BATCH = 8  # pictures; the autoencoder at full resolution is what fills memory


def scale(vae: Any) -> int:
    """How many times smaller a latent's edge is than the picture's."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


@torch.no_grad()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w] of about unit variance."""
    chunks = [
        vae.encode(part.to(vae.device, vae.dtype) * 2 - 1).latent_dist.mean
        for part in images.split(BATCH)
    ]
    return torch.cat(chunks) * vae.config["scaling_factor"]


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
    scaled = latents / vae.config["scaling_factor"]
    chunks = [
        vae.decode(part.to(vae.device, vae.dtype)).sample.float().cpu()
        for part in scaled.split(BATCH)
    ]
    return torch.cat(chunks).add(1).div(2).clamp(0, 1)
