"""What every diffusers family shares: the training target, the sampler, copying the denoiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from .protocol import OnStep

Predict = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, h, w], t [B]) -> output [B, C, h, w]


class NoiseSchedule:
    """The forward process ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps`` and the target it implies."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"prediction_type must be epsilon, v_prediction or sample, got {prediction_type!r}"
            )
        self.alphas_cumprod = alphas_cumprod
        self.prediction_type = prediction_type

    def _weights(self, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(like.device)[t].view(-1, 1, 1, 1).to(like.dtype)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, spread = self._weights(latents, t)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should output: eps, v = sqrt(a) eps - sqrt(1-a) x_0, or x_0."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, spread = self._weights(latents, t)
        return signal * noise - spread * latents


def seeded_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """One Gaussian draw a seed, [B, C, h, w], the same in any batch and on any device."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)


@torch.no_grad()
def sample_dpm_solver(
    scheduler_config: dict[str, object],
    noise: Tensor,
    predict: Predict,
    steps: int,
    on_step: OnStep | None,
    *,
    in_pixel_space: bool = False,
) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022), second order, from pure noise to latents.

    ``in_pixel_space``: keep predictions of x_0 in -1..1, as pictures are.
    """
    # A cosine schedule ends in almost pure noise, where noise prediction says nothing of the
    # picture; diffusers' own advice is to start a little before that end.
    cosine = scheduler_config.get("beta_schedule") == "squaredcos_cap_v2"
    scheduler: Any = DPMSolverMultistepScheduler.from_config(
        scheduler_config,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
        use_karras_sigmas=False,
        timestep_spacing="linspace",
        lower_order_final=True,
        thresholding=in_pixel_space,
        sample_max_value=1.0,
        lambda_min_clipped=-5.1 if cosine else -math.inf,
    )
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = predict(latents, t.expand(len(latents)))
        latents = scheduler.step(output, t, latents).prev_sample
        if on_step is not None:
            on_step()
    return latents


def copy_with_own(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of ``module`` that owns the named parameters and shares every other tensor."""
    owned = set(names)
    unknown = owned - {name for name, _ in module.named_parameters()}
    if unknown:
        raise ValueError(f"names: no parameter is called {sorted(unknown)[0]!r}")
    shared = [p for name, p in module.named_parameters() if name not in owned]
    shared += list(module.buffers())
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
    for name, parameter in copied.named_parameters():
        if name in owned:
            parameter.requires_grad_(True)
    return copied


def changed_tensors(module: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """Tensors of ``module`` whose values differ from ``base``'s, by name."""
    before = base.state_dict()
    return {
        name: tensor
        for name, tensor in module.state_dict().items()
        if tensor is not before[name] and not torch.equal(tensor, before[name])
    }
