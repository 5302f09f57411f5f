"""Drawing with ComfyUI's own samplers, one picture at a time: a seed gives the same picture in any
batch."""

from __future__ import annotations

from collections.abc import Callable

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...unlearn_core.foundation.progress import Progress
from .conditioning import Row
from .network import Network


def has_own_guidance(network: Network) -> bool:
    """Whether the MODEL calculates guidance in its own way, as with RescaleCFG."""
    options = network.patcher.model_options
    return any(name.startswith("sampler_") and value for name, value in options.items())


@torch.no_grad()
def draw(
    network: Network,
    noise: Tensor,
    prompt: Row,
    empty: Row,
    steps: int,
    guidance_scale: float,
    seed: int,
    progress: Progress,
) -> Tensor:
    """One picture's latents [1, C, h, w], scaled for the denoiser.

    Args:
        noise: [1, C, h, w].
    """
    family = network.family
    sampling = network.patcher.get_model_object("model_sampling")
    noise = network.with_axis(noise)
    latents = comfy.sample.sample_custom(
        network.patcher,
        noise,
        guidance_scale,
        comfy.samplers.sampler_object(family.sampler),
        comfy.samplers.calculate_sigmas(sampling, family.scheduler, steps),
        prompt.as_conditioning(),
        empty.as_conditioning(),
        torch.zeros_like(noise),
        callback=_checking(progress),
        disable_pbar=True,
        seed=seed,
    )
    return network.without_axis(network.latent_format.process_in(latents))


def _checking(progress: Progress) -> Callable[[int, Tensor, Tensor, int], None]:
    def after_step(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        progress.check()

    return after_step
