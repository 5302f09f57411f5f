"""A model whose denoiser passes are counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.progress import Progress
from .protocol import Conditioning, Denoiser


@dataclass(frozen=True, eq=False)
class Counted:
    """The denoiser of ``model``; each picture counts as one pass, or as three with the backward
    pass, which costs two. Recomputation by gradient checkpointing is not counted."""

    model: Denoiser
    progress: Progress

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.model.add_noise(latents, noise, t)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        self._count(latents_t)
        return self.model.predict(latents_t, conditioning, t)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.model.target(latents, noise, t)

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        self._count(latents)
        return self.model.denoise_error(latents, conditioning, noise, t)

    def _count(self, pictures: Tensor) -> None:
        self.progress.count_passes(len(pictures) * (3 if torch.is_grad_enabled() else 1))
