"""Stable Diffusion 1.x, 2.x and XL: a U-Net, one or two text encoders and an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..foundation.progress import Progress
from . import autoencoder
from .denoiser import sample_dpm_solver, seeded_noise
from .guidance import guided
from .protocol import Conditioning, Embeddings
from .text_to_image import TextToImageHandle


@dataclass(frozen=True, eq=False)
class StableDiffusionHandle(TextToImageHandle):
    """A ``UNet2DConditionModel`` with its frozen text encoder and autoencoder."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = self.info.image_size // autoencoder.scale(self.vae)
        return (int(self.denoiser.config["in_channels"]), edge, edge)

    @property
    def size_step(self) -> int | None:
        deepest = 2 ** (len(self.denoiser.config["block_out_channels"]) - 1)
        return autoencoder.scale(self.vae) * deepest

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.base, self.vae, *(clip.encoder for clip in self.text.clips))

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        assert isinstance(conditioning, Embeddings)
        with self.autocast():
            return self.denoiser(
                latents_t,
                t,
                conditioning.values,
                added_cond_kwargs=self._added(conditioning, latents_t),
            ).sample.float()

    def _added(self, conditioning: Embeddings, latents: Tensor) -> dict[str, Tensor] | None:
        """SDXL's additional inputs: the pooled text, and the sizes of a picture that was neither
        scaled nor cropped (height, width, top, left, height, width)."""
        if conditioning.pooled is None:
            return None
        height, width = (edge * autoencoder.scale(self.vae) for edge in latents.shape[2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=self.device)
        return {
            "text_embeds": conditioning.pooled,
            "time_ids": sizes.expand(len(conditioning), -1),
        }

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        latent_shape: tuple[int, int, int] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        noise = seeded_noise(seeds, latent_shape or self.latent_shape).to(self.device)
        prompt = self.encode_prompts(prompts)
        empty = self.encode_prompts([""])[[0] * len(prompts)]
        predict = guided(self.predict, prompt, empty, guidance_scale)
        return sample_dpm_solver(self.scheduler_config, noise, predict, steps, progress)
