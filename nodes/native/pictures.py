"""Pictures to latents and back, with ComfyUI's VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...unlearn_core.models.errors import UnsupportedError
from .network import Network

AT_ONCE = 4  # pictures


def encode(vae: Any, network: Network, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w], scaled for the denoiser."""
    with torch.inference_mode():  # like ComfyUI's nodes: weights may be inference tensors
        # One by one: a VAE for videos would encode a batch as one video.
        parts = [_required(vae).encode(image.movedim(0, -1)[None]) for image in images.cpu()]
    with torch.inference_mode(False), torch.no_grad():
        latents = torch.cat([part.clone() for part in parts])
        if network.has_time_axis and latents.ndim == 4:
            latents = latents.unsqueeze(2)
        scaled = network.latent_format.process_in(latents)
        return network.without_axis(scaled).to(network.device)


def decode(vae: Any, network: Network, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
    with torch.inference_mode(False), torch.no_grad():
        unscaled = network.latent_format.process_out(network.with_axis(latents.detach().cpu()))
    with torch.inference_mode():
        parts = [_required(vae).decode(part).cpu() for part in unscaled.split(AT_ONCE)]
    with torch.inference_mode(False), torch.no_grad():
        images = torch.cat([part.clone() for part in parts]).float()
        if images.ndim == 5:  # [B, 1, H, W, 3]
            images = images[:, 0]
        return images.movedim(-1, 1)


def _required(vae: Any) -> Any:
    if vae is None:
        raise UnsupportedError(
            "vae must be linked to see or read pictures (previews, evaluation, Own Pictures); "
            "link the checkpoint's VAE or Load VAE to From ComfyUI"
        )
    return vae
