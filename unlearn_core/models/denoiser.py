"""The common part of all diffusers families: training target, sampler, copies of the denoiser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..foundation.progress import Progress
from . import weights
from .guidance import Predict
from .layers import UNET, XATTN, Groups, in_scope, keys_and_values
from .protocol import TOKENS, Conditioning, LoraLayer, ModelInfo
from .tensors import with_tensors

SAMPLER_VERSION = 1
"""Part of the keys of cached pictures. Increase it whenever the same model, prompt, seed and
settings give another picture."""
OWN_SPACINGS = (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
    "euler_at_final",
)  # fmt: skip
"""Settings with which a folder's own scheduler divides the same noise process into other steps."""
FULL_SIZE = 100_000_000  # parameters; smaller models need no gradient checkpointing


class Schedule(Protocol):
    """The forward process and the training target of a family."""

    @property
    def prediction_type(self) -> str: ...

    def times(self, levels: Tensor) -> Tensor:
        """Uniform noise levels [B] in 0..1 to timesteps [B]."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...


class NoiseSchedule:
    """The forward process ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps`` and the training target."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"prediction_type must be epsilon, v_prediction or sample, got {prediction_type!r}"
            )
        self.alphas_cumprod = alphas_cumprod
        self.prediction_type = prediction_type

    def times(self, levels: Tensor) -> Tensor:
        """Timesteps int64 [B], 0 to the last that the model was trained on."""
        count = len(self.alphas_cumprod)
        return (levels * count).long().clamp(max=count - 1)

    def _weights(self, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(like.device)[t].view(-1, 1, 1, 1).to(like.dtype)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, spread = self._weights(latents, t)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target of the denoiser: eps, v = sqrt(a) eps - sqrt(1-a) x_0, or x_0."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, spread = self._weights(latents, t)
        return signal * noise - spread * latents


def seeded_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """One Gaussian sample per seed, [B, C, h, w], the same in any batch and on any device."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)


def dpm_solver(scheduler_config: dict[str, object], *, in_pixel_space: bool = False) -> Any:
    """diffusers' DPM-Solver++ for the noise of these settings.

    Raises:
        ValueError, NotImplementedError: settings without a solver.
    """
    from diffusers import DPMSolverMultistepScheduler

    # A cosine schedule ends in almost pure noise, where a noise prediction contains no information
    # about the picture; diffusers recommends starting a little before that end.
    cosine = scheduler_config.get("beta_schedule") == "squaredcos_cap_v2"
    return DPMSolverMultistepScheduler.from_config(
        scheduler_config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        timestep_spacing="linspace",
        lower_order_final=True,
        **dict.fromkeys(OWN_SPACINGS, False),
        thresholding=in_pixel_space,
        sample_max_value=1.0,
        lambda_min_clipped=-5.1 if cosine else -math.inf,
        # ``predict`` omits a learned variance. If the solver expected one, it would cut the output
        # to three channels, whatever the model's number.
        variance_type=None,
    )


@torch.no_grad()
def sample_dpm_solver(
    scheduler_config: dict[str, object],
    noise: Tensor,
    predict: Predict,
    steps: int,
    progress: Progress | None,
    *,
    in_pixel_space: bool = False,
) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022), second order, from pure noise to latents.

    With ``in_pixel_space``, predictions of x_0 are limited to -1..1, the range of pictures.
    """
    scheduler = dpm_solver(scheduler_config, in_pixel_space=in_pixel_space)
    timesteps = scheduler.config["num_train_timesteps"]
    too_many = ValueError(
        f"generation: {steps} steps are too many for a schedule of {timesteps} timesteps; "
        "choose fewer, 20 to 50 are usual"
    )
    if steps >= timesteps:
        raise too_many
    scheduler.set_timesteps(steps, device=noise.device)
    if (scheduler.timesteps.diff() >= 0).any():
        raise too_many
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = predict(latents, t.expand(len(latents)))
        latents = scheduler.step(output, t, latents).prev_sample
        if progress is not None:
            progress.check()
    return latents


@dataclass(frozen=True, eq=False)
class DenoiserHandle(ABC):
    """The common part of the handles of all families.

    ``base`` is the loaded denoiser; ``denoiser`` is the same object, or an unlearned copy.
    """

    info: ModelInfo
    denoiser: Any  # a diffusers model: its outputs and config are loosely typed
    base: Any
    schedule: Schedule
    scheduler_config: dict[str, object]

    @property
    def device(self) -> torch.device:
        return self.base.device

    def times(self, levels: Tensor) -> Tensor:
        return self.schedule.times(levels)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, t)

    @abstractmethod
    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor: ...

    def passes_per_step(self, guidance_scale: float) -> int:
        return 1 if guidance_scale == 1 else 2

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.schedule.target(latents, noise, t)

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        output = self.predict(self.add_noise(latents, noise, t), conditioning, t)
        return (output - self.target(latents, noise, t)).square()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.denoiser.named_parameters()

    @property
    def can_decode(self) -> bool:
        return True

    @property
    def layer_groups(self) -> Groups:
        """The scopes of the architecture."""
        return UNET

    @property
    def default_scope(self) -> str:
        return XATTN

    def parameters_in(self, scope: str) -> list[str]:
        return in_scope(self._names(), scope, self.layer_groups)

    def text_projections(self) -> dict[str, str]:
        return dict.fromkeys(keys_and_values(self._names()), TOKENS)

    def _names(self) -> list[str]:
        return [name for name, _ in self.named_parameters()]

    def trainable_copy(self, names: Sequence[str]) -> Self:
        return replace(
            self, denoiser=_with_checkpointing(weights.copy_with_trainable(self.denoiser, names))
        )

    def lora_copy(self, names: Sequence[str], rank: int, alpha: float, seed: int) -> Self:
        adapted = weights.copy_with_lora(self.denoiser, names, rank, alpha, seed)
        return replace(self, denoiser=_with_checkpointing(adapted))

    def fixed_copy(self) -> Self:
        loaded: Any = replace(self, denoiser=self.base)
        return with_tensors(loaded, self.changed_tensors())

    def lora_layers(self) -> dict[str, LoraLayer]:
        return weights.lora_layers(self.denoiser)

    def networks(self) -> tuple[nn.Module, ...]:
        """All networks of the loaded model."""
        return (self.base,)

    def own_tensors(self) -> list[Tensor]:
        loaded = weights.tensors_of(self.networks())
        if self.denoiser is self.base:
            return loaded
        shared = {id(tensor) for tensor in loaded}
        return [t for t in weights.tensors_of([self.denoiser]) if id(t) not in shared]

    def get_ram_usage(self) -> int:
        """Bytes of ``own_tensors``. ComfyUI's cache of outputs calls this method by name."""
        return sum(tensor.nbytes for tensor in self.own_tensors())

    def changed_tensors(self) -> Mapping[str, Tensor]:
        return weights.changed_tensors(self.denoiser, self.base)


def _with_checkpointing(denoiser: Any) -> Any:
    """Enable gradient checkpointing (Chen et al. 2016) for full-size models, in place: each block
    is recomputed in the backward pass. The gradient is the same; for a picture of Stable Diffusion
    1.5 at 512 px it needs 0.8 instead of 2.1 GiB and a fifth more time."""
    if sum(parameter.numel() for parameter in denoiser.parameters()) >= FULL_SIZE:
        denoiser.enable_gradient_checkpointing()
    return denoiser
