"""Flux.1: diffusers' ``FluxTransformer2DModel`` (Black Forest Labs 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .flow import PATCH, FlowHandle, resolution_shift
from .guidance import Predict
from .protocol import Conditioning, Embeddings

GUIDANCE = 3.5
"""The distilled guidance that the published pipeline draws with. Predictions use it, so that the
model forgets as it is used."""
TRAINING_GUIDANCE = 1.0  # without guidance, the target is the velocity of the training pictures


@dataclass(frozen=True, eq=False)
class FluxHandle(FlowHandle):
    """Flux.1-dev takes the guidance as an input; Flux.1-schnell has none."""

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        return self._velocity(latents_t, conditioning, t, GUIDANCE)

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        latents_t = self.add_noise(latents, noise, t)
        output = self._velocity(latents_t, conditioning, t, TRAINING_GUIDANCE)
        return (output - self.target(latents, noise, t)).square()

    def _velocity(
        self, latents_t: Tensor, conditioning: Conditioning, t: Tensor, guidance: float
    ) -> Tensor:
        assert isinstance(conditioning, Embeddings)
        count, channels, height, width = latents_t.shape
        rows, columns = height // PATCH, width // PATCH
        patches = latents_t.view(count, channels, rows, PATCH, columns, PATCH)
        tokens = patches.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)
        has_guidance = self.denoiser.config["guidance_embeds"]
        with self.autocast():
            output = self.denoiser(
                hidden_states=tokens,
                timestep=t,
                guidance=torch.full_like(t, guidance) if has_guidance else None,
                pooled_projections=conditioning.pooled,
                encoder_hidden_states=conditioning.values,
                txt_ids=torch.zeros(conditioning.values.shape[1], 3, device=tokens.device),
                img_ids=_positions(rows, columns).to(tokens.device),
            ).sample.float()
        patches = output.view(count, rows, columns, channels, PATCH, PATCH)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(latents_t.shape)

    def sampler_options(self, steps: int, tokens: int) -> dict[str, Any]:
        return {
            "sigmas": torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).numpy(),
            "mu": resolution_shift(self.scheduler_config, tokens),
        }

    def passes_per_step(self, guidance_scale: float) -> int:
        return 1  # the scale is an input of the network

    def sampled(self, prompts: Sequence[str], guidance_scale: float) -> Predict:
        conditioning = self.encode_prompts(prompts)
        return lambda x_t, t: self._velocity(x_t, conditioning, t, guidance_scale)


def _positions(rows: int, columns: int) -> Tensor:
    """[rows * columns, 3]: 0, row and column of each picture token."""
    grid = torch.zeros(rows, columns, 3)
    grid[..., 1] = torch.arange(rows)[:, None]
    grid[..., 2] = torch.arange(columns)
    return grid.reshape(-1, 3)
