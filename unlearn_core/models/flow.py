"""Rectified-flow transformers: noise process, sampler, and the common part of SD3 and Flux."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.progress import Progress
from . import autoencoder
from .denoiser import seeded_noise
from .flow_text import FlowText
from .guidance import Predict
from .layers import JOINT, LORA_TEXT_PATH, Groups
from .protocol import POOLED, TOKENS
from .text_to_image import TextToImageHandle

PATCH = 2  # edge of a picture token in latent pixels
TRAIN_TIMESTEPS = 1000
EDGE = 1e-4  # levels this close to 0 or 1 would be infinite under the logit
TEXT_INPUTS = {
    "context_embedder.weight": TOKENS,
    "time_text_embed.text_embedder.linear_1.weight": POOLED,
}


@dataclass(frozen=True)
class FlowSchedule:
    """``x_t = (1 - t) x_0 + t eps`` with t in 0..1 and the velocity ``eps - x_0`` as the target
    (Liu et al. 2022).

    Attributes:
        shift: moves the timesteps towards noise; 1 is none (Esser et al. 2024, section 5.3.2).
        logit_normal: train at logit-normal timesteps (section 3.1 there); otherwise uniform.
    """

    shift: float = 1.0
    logit_normal: bool = True
    prediction_type: str = "flow"

    def times(self, levels: Tensor) -> Tensor:
        """Timesteps [B] in 0..1."""
        if self.logit_normal:
            levels = torch.special.ndtri(levels.clamp(EDGE, 1 - EDGE)).sigmoid()
        return self.shift * levels / (1 + (self.shift - 1) * levels)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        t = t.view(-1, 1, 1, 1).to(latents.dtype)
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - latents


def resolution_shift(config: dict[str, Any], tokens: int) -> float:
    """The exponent of the shift for a picture of this many tokens, linear between the two sizes of
    the scheduler's settings."""
    small, large = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (tokens - small) / (large - small)


def schedule_of(config: dict[str, Any], tokens: int, *, logit_normal: bool = True) -> FlowSchedule:
    """The schedule of a model with these scheduler settings and pictures of this many tokens."""
    if config.get("use_dynamic_shifting"):
        shift = resolution_shift(config, tokens)
        is_linear = config.get("time_shift_type") == "linear"
        return FlowSchedule(shift if is_linear else math.exp(shift), logit_normal)
    return FlowSchedule(float(config.get("shift", 1.0)), logit_normal)


@dataclass(frozen=True, eq=False)
class FlowHandle(TextToImageHandle):
    """A transformer in which text and picture tokens attend to each other, with its frozen text
    encoders and autoencoder."""

    text: FlowText

    @property
    def layer_groups(self) -> Groups:
        return JOINT

    @property
    def default_scope(self) -> str:
        return LORA_TEXT_PATH

    def text_projections(self) -> dict[str, str]:
        """The first layers of the text path. Empty with T5: each of its embeddings depends on the
        whole prompt, so a concept has no tokens of its own."""
        if self.text.t5 is not None:
            return {}
        return {name: TEXT_INPUTS[name] for name in self._names() if name in TEXT_INPUTS}

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config["latent_channels"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = self.info.image_size // autoencoder.scale(self.vae)
        return (self.latent_channels, edge, edge)

    @property
    def size_step(self) -> int | None:
        return autoencoder.scale(self.vae) * PATCH

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.base, self.vae, *self.text.networks())

    @abstractmethod
    def sampler_options(self, steps: int, tokens: int) -> dict[str, Any]:
        """What the pipeline passes to its scheduler in addition to the number of steps."""

    @abstractmethod
    def sampled(self, prompts: Sequence[str], guidance_scale: float) -> Predict:
        """The velocity that the sampler follows."""

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
        shape = latent_shape or self.latent_shape
        noise = seeded_noise(seeds, shape).to(self.device)
        options = self.sampler_options(steps, shape[1] * shape[2] // PATCH**2)
        predict = self.sampled(prompts, guidance_scale)
        return sample_euler(self.scheduler_config, noise, predict, steps, options, progress)


@torch.no_grad()
def sample_euler(
    scheduler_config: dict[str, object],
    noise: Tensor,
    predict: Predict,
    steps: int,
    options: dict[str, Any],
    progress: Progress | None,
) -> Tensor:
    """Euler steps along the velocity, from pure noise to latents, at the pipeline's timesteps."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(scheduler_config)
    scheduler.set_timesteps(steps, device=noise.device, **options)
    scheduler.set_begin_index(0)
    latents = noise
    for t in scheduler.timesteps:
        velocity = predict(latents, (t / TRAIN_TIMESTEPS).expand(len(latents)))
        latents = scheduler.step(velocity, t, latents).prev_sample
        if progress is not None:
            progress.check()
    return latents
