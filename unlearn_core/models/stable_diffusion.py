"""Stable Diffusion 1.x, 2.x and XL: a U-Net, one or two text encoders and an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..foundation.progress import Progress
from . import autoencoder
from .denoiser import DenoiserHandle, sample_dpm_solver, seeded_noise
from .guidance import guided
from .protocol import Conditioning, Embeddings
from .text import TextEncoder


@dataclass(frozen=True, eq=False)
class StableDiffusionHandle(DenoiserHandle):
    """A ``UNet2DConditionModel`` with its frozen text encoder and autoencoder."""

    vae: Any
    text: TextEncoder

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

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        with self._autocast():
            return self.text.encode(prompts)

    def word_embedding(self, word: str) -> Tensor:
        return self.text.word_embedding(word)

    def with_word(self, word: str, embedding: Tensor) -> Self:
        return replace(self, text=self.text.with_word(word, embedding))

    def encode_images(self, images: Tensor) -> Tensor:
        return autoencoder.encode(self.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return autoencoder.decode(self.vae, latents)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        assert isinstance(conditioning, Embeddings)
        with self._autocast():
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

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.info.mixed:
            return nullcontext()  # some devices do not support autocast, not even disabled
        return torch.autocast(self.device.type, torch.bfloat16)

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
