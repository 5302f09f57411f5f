"""Noise levels of ComfyUI's models: timesteps, noising, and the network's output and target.

ComfyUI's ``apply_model`` returns the denoised latents x_0 of any model. With ``x = x_0 + sigma
eps`` or, for flow matching, ``x = (1 - sigma) x_0 + sigma eps``, the quotient ``(x - x_0) / sigma``
is the predicted noise, or the predicted velocity ``eps - x_0``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from comfy.model_sampling import CONST, EDM, V_PREDICTION, ModelSamplingDiscrete
from torch import Tensor

from ...unlearn_core.foundation.devices import in_float64

FLOW, EPSILON, V = "flow", "epsilon", "v_prediction"


class Schedule(ABC):
    """The noise levels of one model.

    Attributes:
        prediction: what ``output`` is: ``"flow"`` (the velocity), ``"epsilon"`` (the noise) or
            ``"v_prediction"``.
    """

    prediction: str

    def __init__(self, sampling: Any) -> None:
        self.sampling = sampling  # a mixture of ComfyUI's classes, different for each model

    @abstractmethod
    def times(self, levels: Tensor) -> Tensor:
        """Convert noise levels [B] in 0..1 to timesteps t [B]."""

    @abstractmethod
    def sigmas(self, t: Tensor) -> Tensor:
        """ComfyUI's noise levels [B] at the timesteps t [B]."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, C, h, w]."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The value that ``output`` should have."""

    def network_input(self, latents_t: Tensor, t: Tensor) -> Tensor:
        """x_t in the scale that ``apply_model`` expects."""
        return latents_t

    def output(self, inputs: Tensor, denoised: Tensor, t: Tensor) -> Tensor:
        """The prediction, from the input and the result of ``apply_model``."""
        return (inputs - denoised) / _wide(self.sigmas(t), inputs)


class DiscreteSchedule(Schedule):
    """The models with 1000 timesteps: Stable Diffusion 1, 2, XL, PixArt, Hunyuan-DiT.

    Timesteps are int64, and ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps`` as in the core's handles,
    so that both give the same predictions and losses. ComfyUI divides this by ``sqrt(a_t)``.
    """

    def __init__(self, sampling: Any) -> None:
        super().__init__(sampling)
        # EDM's classes are subclasses, but their models are preconditioned to predict x_0.
        is_v = isinstance(sampling, V_PREDICTION) and not isinstance(sampling, EDM)
        self.prediction = V if is_v else EPSILON

    def __len__(self) -> int:
        return len(self.sampling.sigmas)

    def times(self, levels: Tensor) -> Tensor:
        return (levels * len(self)).long().clamp(max=len(self) - 1)

    def sigmas(self, t: Tensor) -> Tensor:
        return self.sampling.sigmas.to(t.device)[t]

    def _weights(self, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``sqrt(a_t)`` and ``sqrt(1 - a_t)``."""
        sigmas = _wide(self.sigmas(t), like)
        signal = (sigmas.square() + 1).rsqrt()
        return signal, signal * sigmas

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, spread = self._weights(latents, t)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        if self.prediction == EPSILON:
            return noise
        signal, spread = self._weights(latents, t)
        return signal * noise - spread * latents

    def network_input(self, latents_t: Tensor, t: Tensor) -> Tensor:
        signal, _ = self._weights(latents_t, t)
        return latents_t / signal

    def output(self, inputs: Tensor, denoised: Tensor, t: Tensor) -> Tensor:
        epsilon = super().output(inputs, denoised, t)
        if self.prediction == EPSILON:
            return epsilon
        signal, spread = self._weights(inputs, t)
        return signal * epsilon - spread * denoised

    def scheduler_config(self) -> dict[str, object]:
        """The schedule in the terms of diffusers' schedulers."""
        alphas = 1 / (in_float64(self.sampling.sigmas).square() + 1)
        betas = 1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])
        return {
            "num_train_timesteps": len(self),
            "trained_betas": betas.tolist(),
            "prediction_type": self.prediction,
        }


class FlowSchedule(Schedule):
    """Flow matching: Flux, Stable Diffusion 3, Lumina, Qwen-Image and others. Timesteps are sigmas,
    logit-normal (Esser et al. 2024) and then shifted as in the model's own schedule."""

    prediction = FLOW

    def times(self, levels: Tensor) -> Tensor:
        uniform = torch.special.ndtri(in_float64(levels)).sigmoid().float().to(levels.device)
        sigmas = self.sampling.sigma(uniform * getattr(self.sampling, "multiplier", 1))
        first, last = float(self.sampling.sigmas[0]), float(self.sampling.sigmas[-1])
        return sigmas.clamp(first, last)

    def sigmas(self, t: Tensor) -> Tensor:
        return t

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigmas = _wide(t, latents)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - latents


class ContinuousSchedule(Schedule):
    """Any sigma > 0, as in EDM (Karras et al. 2022) and Cosmos. Timesteps are sigmas, log-normal
    around 1, the standard deviation of the latents."""

    prediction = EPSILON

    def times(self, levels: Tensor) -> Tensor:
        first, last = float(self.sampling.sigma_min), float(self.sampling.sigma_max)
        sigmas = torch.special.ndtri(in_float64(levels)).exp().float().clamp(first, last)
        return sigmas.to(levels.device)

    def sigmas(self, t: Tensor) -> Tensor:
        return t

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return latents + _wide(t, latents) * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise


def schedule_of(sampling: Any) -> Schedule:
    """The schedule of ComfyUI's ``model_sampling``."""
    if isinstance(sampling, CONST):
        return FlowSchedule(sampling)
    if isinstance(sampling, ModelSamplingDiscrete):
        return DiscreteSchedule(sampling)
    return ContinuousSchedule(sampling)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1], to multiply latents with."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))
