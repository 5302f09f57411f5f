"""Forget and retain losses, per sample [B]; the loop reduces them.

A forget loss is written so that decreasing it makes the model worse at the concept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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


def denoise(
    model: ModelHandle,
    frozen: ModelHandle,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """The model's own training loss on retain pictures (the paper's ``L_r``), [B]."""
    return _per_sample(model.denoise_error(latents, conditioning, noise, t))


def distill(
    model: ModelHandle,
    frozen: ModelHandle,
    latents: Tensor,
    conditioning: Conditioning,
    noise: Tensor,
    t: Tensor,
) -> Tensor:
    """How far the prediction has moved from the frozen model's on retain pictures, [B].

    The minimum is the same as ``denoise``'s for a model that drew its own retain set, but the
    noise that no model can predict has cancelled: what is left of the gradient is damage alone.
    """
    latents_t = model.add_noise(latents, noise, t)
    with torch.no_grad():
        target = frozen.predict(latents_t, conditioning, t)
    return _per_sample((model.predict(latents_t, conditioning, t) - target).square())


def ascent(
    model: ModelHandle,
    frozen: ModelHandle,
    batch: ForgetBatch,
    *,
    truncation: float,
    negative_guidance: float,
) -> Tensor:
    """``-min((eps - eps_theta)^2, alpha)`` (the paper, with its CIFAR code's truncation), [B].

    An element whose error has passed ``truncation`` has no gradient: the model is pushed away from
    the concept only until it is that wrong.
    """
    error = model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)
    return -_per_sample(error.clamp(max=truncation))


def redirect(
    model: ModelHandle,
    frozen: ModelHandle,
    batch: ForgetBatch,
    *,
    truncation: float,
    negative_guidance: float,
) -> Tensor:
    """Distance to what the frozen model predicts for the parallel prompt, and a little beyond, [B].

    The concept's prompt comes to mean its parallel: ``||eps_theta(x_t, c_f) - target||^2`` with
    ``target = eps_0(x_t, c_r) - eta * (eps_0(x_t, c_f) - eps_0(x_t, c_r))``, where ``eta`` is
    ``negative_guidance`` (Kumari et al. 2023 for eta = 0; the second term is that of Gandikota et
    al. 2023). Without it, what is left of the concept is amplified by guidance when sampling.
    Half of the rows start from the concept's pictures and half from the parallel's, so that the
    answer is right both where sampling starts and where it ends up.
    """
    from_concept = torch.arange(len(batch.t), device=batch.t.device) % 2 == 0
    latents = torch.where(from_concept.view(-1, 1, 1, 1), batch.latents, batch.parallel_latents)
    latents_t = model.add_noise(latents, batch.noise, batch.t)
    with torch.no_grad():
        wanted = frozen.predict(latents_t, batch.parallel_conditioning, batch.t)
        unwanted = frozen.predict(latents_t, batch.conditioning, batch.t)
        target = wanted - negative_guidance * (unwanted - wanted)
    return _per_sample((model.predict(latents_t, batch.conditioning, batch.t) - target).square())


class ForgetObjective(Protocol):
    """A forget loss of the arguments that ``ascent`` and ``redirect`` have."""

    def __call__(
        self,
        model: ModelHandle,
        frozen: ModelHandle,
        batch: ForgetBatch,
        *,
        truncation: float,
        negative_guidance: float,
    ) -> Tensor: ...


RetainObjective = Callable[[ModelHandle, ModelHandle, Tensor, Conditioning, Tensor, Tensor], Tensor]
OBJECTIVES: dict[str, ForgetObjective] = {"redirect": redirect, "ascent": ascent}
RETAIN_OBJECTIVES: dict[str, RetainObjective] = {"distill": distill, "denoise": denoise}


def _per_sample(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)  # [B]
