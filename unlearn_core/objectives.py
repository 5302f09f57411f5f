"""Forget and retain losses, per sample [B]; the loop reduces them.

A forget loss is written so that decreasing it makes the model worse at the concept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .models.protocol import Conditioning, ModelHandle


@dataclass(frozen=True)
class ForgetBatch:
    """Forget pictures and, row by row, the pictures of their parallel prompts.

    Attributes:
        latents: of pictures that show the concept, [B, C, h, w].
        conditioning: the prompts that ask for it.
        parallel_latents: of the parallel prompts' pictures, [B, C, h, w].
        parallel_conditioning: the same prompts without the concept.
        noise: [B, C, h, w].
        t: timesteps int64 [B].
    """

    latents: Tensor
    conditioning: Conditioning
    parallel_latents: Tensor
    parallel_conditioning: Conditioning
    noise: Tensor
    t: Tensor


def retain_loss(
    model: ModelHandle, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
) -> Tensor:
    """The model's own training loss on retain pictures, [B]."""
    return _per_sample(model.denoise_error(latents, conditioning, noise, t))


def ascent(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, truncation: float
) -> Tensor:
    """``-min((eps - eps_theta)^2, alpha)`` (the paper, with its CIFAR code's truncation), [B].

    An element whose error has passed ``truncation`` has no gradient: the model is pushed away from
    the concept only until it is that wrong.
    """
    error = model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)
    return -_per_sample(error.clamp(max=truncation))


def redirect(
    model: ModelHandle, frozen: ModelHandle, batch: ForgetBatch, truncation: float
) -> Tensor:
    """Distance to what the frozen model predicts for the parallel prompt, [B].

    The concept's prompt comes to mean its parallel: ``||eps_theta(x_t, c_f) - eps_0(x_t, c_r)||^2``
    (Kumari et al. 2023), on the parallel's pictures and on the concept's own in turn, so that the
    answer is right both where sampling starts and where it ends up.
    """
    from_concept = torch.arange(len(batch.t), device=batch.t.device) % 2 == 0
    latents = torch.where(from_concept.view(-1, 1, 1, 1), batch.latents, batch.parallel_latents)
    latents_t = model.add_noise(latents, batch.noise, batch.t)
    with torch.no_grad():
        target = frozen.predict(latents_t, batch.parallel_conditioning, batch.t)
    return _per_sample((model.predict(latents_t, batch.conditioning, batch.t) - target).square())


ForgetObjective = Callable[[ModelHandle, ModelHandle, ForgetBatch, float], Tensor]
OBJECTIVES: dict[str, ForgetObjective] = {"ascent": ascent, "redirect": redirect}


def _per_sample(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)  # [B]
