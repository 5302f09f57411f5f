"""Stable Diffusion 3 and 3.5: diffusers' ``SD3Transformer2DModel`` (Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .flow import TRAIN_TIMESTEPS, FlowHandle, resolution_shift
from .flow_text import JointEmbeddings
from .guidance import Predict, guided
from .protocol import Conditioning


@dataclass(frozen=True, eq=False)
class StableDiffusion3Handle(FlowHandle):
    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        assert isinstance(conditioning, JointEmbeddings)
        groups = conditioning.groups()
        if len(groups) == 1:
            return self._velocity(latents_t, conditioning, t)
        parts = [self._velocity(latents_t[rows], conditioning[rows], t[rows]) for rows in groups]
        order = torch.tensor([row for rows in groups for row in rows], device=latents_t.device)
        return torch.cat(parts)[order.argsort()]

    def _velocity(self, latents_t: Tensor, conditioning: JointEmbeddings, t: Tensor) -> Tensor:
        """The output for prompts of one length."""
        with self.autocast():
            return self.denoiser(
                hidden_states=latents_t,
                timestep=t * TRAIN_TIMESTEPS,
                encoder_hidden_states=conditioning.values,
                pooled_projections=conditioning.pooled,
            ).sample.float()

    def sampler_options(self, steps: int, tokens: int) -> dict[str, Any]:
        if not self.scheduler_config.get("use_dynamic_shifting"):
            return {}
        return {"mu": resolution_shift(self.scheduler_config, tokens)}

    def sampled(self, prompts: Sequence[str], guidance_scale: float) -> Predict:
        empty = self.encode_prompts([""])[[0] * len(prompts)]
        return guided(self.predict, self.encode_prompts(prompts), empty, guidance_scale)
