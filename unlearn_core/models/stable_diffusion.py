"""Stable Diffusion, from a diffusers folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import Self

from . import denoiser
from .protocol import Conditioning, ModelInfo, OnStep

DECODE_BATCH = 8  # pictures; the VAE at full resolution is what fills memory


@dataclass(frozen=True, eq=False)
class StableDiffusionHandle:
    """A U-Net with its frozen text encoder and autoencoder.

    ``base`` is the U-Net as loaded; ``unet`` is it, or what unlearning made of it.
    """

    info: ModelInfo
    unet: UNet2DConditionModel
    base: UNet2DConditionModel
    vae: Any  # AutoencoderKL, whose outputs diffusers types wrongly
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: denoiser.NoiseSchedule
    scheduler_config: dict[str, object]

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = int(self.unet.config["sample_size"])
        return (int(self.unet.config["in_channels"]), edge, edge)

    @property
    def timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        chunks = [self.text_encoder(part.to(self.device))[0] for part in tokens.split(32)]
        return Conditioning(torch.cat(chunks))  # [B, 77, D]

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        chunks = [
            self.vae.encode(part.to(self.device, self.vae.dtype) * 2 - 1).latent_dist.mean
            for part in images.split(DECODE_BATCH)
        ]
        return torch.cat(chunks) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        scaled = latents / self.vae.config["scaling_factor"]
        chunks = [
            self.vae.decode(part.to(self.device, self.vae.dtype)).sample.float().cpu()
            for part in scaled.split(DECODE_BATCH)
        ]
        return torch.cat(chunks).add(1).div(2).clamp(0, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, t)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        return self.unet(latents_t, t, conditioning.values).sample

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        output = self.predict(self.add_noise(latents, noise, t), conditioning, t)
        return (output - self.schedule.target(latents, noise, t)).square()

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        on_step: OnStep | None = None,
    ) -> Tensor:
        noise = denoiser.seeded_noise(seeds, self.latent_shape).to(self.device)
        prompt = self.encode_prompts(prompts)
        empty = self.encode_prompts([""]).values.expand_as(prompt.values)
        both = Conditioning(torch.cat([empty, prompt.values]))

        def predict(latents_t: Tensor, t: Tensor) -> Tensor:
            if guidance_scale == 1:
                return self.predict(latents_t, prompt, t)
            output = self.predict(torch.cat([latents_t] * 2), both, torch.cat([t] * 2))
            free, guided = output.chunk(2)
            return free + guidance_scale * (guided - free)

        return denoiser.sample_dpm_solver(self.scheduler_config, noise, predict, steps, on_step)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.unet.named_parameters()

    def trainable_copy(self, names: Sequence[str]) -> Self:
        return replace(self, unet=denoiser.copy_with_own(self.unet, names))

    def changed_tensors(self) -> dict[str, Tensor]:
        return denoiser.changed_tensors(self.unet, self.base)
