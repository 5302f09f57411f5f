"""Class-conditional diffusion in pixel space: diffusers' ``UNet2DModel`` with class labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from typing_extensions import Self

from . import denoiser
from .protocol import Conditioning, ModelInfo, OnStep


@dataclass(frozen=True, eq=False)
class ClassConditionalHandle:
    """A U-Net whose prompt is a class name. ``class_names[i]`` names label ``i``."""

    info: ModelInfo
    unet: UNet2DModel
    base: UNet2DModel
    class_names: tuple[str, ...]
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

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        labels = [self._label(prompt) for prompt in prompts]
        return Conditioning(torch.tensor(labels, device=self.device))

    def _label(self, prompt: str) -> int:
        named = [
            label
            for label, name in enumerate(self.class_names)
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt, re.IGNORECASE)
        ]
        if len(named) != 1:
            raise ValueError(
                f"prompt must name exactly one class of {self.info.name!r} "
                f"({', '.join(self.class_names)}), got {prompt!r}"
            )
        return named[0]

    def encode_images(self, images: Tensor) -> Tensor:
        channels = self.latent_shape[0]
        pictures = images.mean(1, keepdim=True) if channels == 1 else images
        return pictures.to(self.device) * 2 - 1

    def decode_latents(self, latents: Tensor) -> Tensor:
        images = latents.float().cpu().add(1).div(2).clamp(0, 1)
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, t)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        return self.unet(latents_t, t, class_labels=conditioning.values).sample

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
        classes = self.encode_prompts(prompts)

        def predict(latents_t: Tensor, t: Tensor) -> Tensor:
            return self.predict(latents_t, classes, t)

        return denoiser.sample_dpm_solver(
            self.scheduler_config, noise, predict, steps, on_step, in_pixel_space=True
        )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.unet.named_parameters()

    def trainable_copy(self, names: Sequence[str]) -> Self:
        return replace(self, unet=denoiser.copy_with_own(self.unet, names))

    def changed_tensors(self) -> dict[str, Tensor]:
        return denoiser.changed_tensors(self.unet, self.base)
