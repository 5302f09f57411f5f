"""The network of a MODEL, loaded by ComfyUI and fit for autograd."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...unlearn_core.models.errors import UnsupportedError
from .adapters import is_linear
from .families import Family, family_of
from .refusals import refuse_unsupported
from .schedules import Schedule, schedule_of


class Network:
    """A clone of a MODEL. It shares the weights with the given MODEL, which is never changed.

    Attributes:
        given: the MODEL from the loader.
        patcher: the clone, with the patches and LoRAs of ``given``.

    Raises:
        UnsupportedError: the model cannot be trained.
    """

    def __init__(self, given: ModelPatcher) -> None:
        self.family: Family = family_of(given.model)
        refuse_unsupported(given)
        self.given = given
        # Newer patchers that stream their weights must be cloned into ordinary ones.
        can_stream = "disable_dynamic" in inspect.signature(given.clone).parameters
        options: dict[str, Any] = {"disable_dynamic": True} if can_stream else {}
        try:
            self.patcher: ModelPatcher = given.clone(**options)
        except RuntimeError as error:  # there is no file to read it from as a whole
            raise UnsupportedError(
                "model must come from one of ComfyUI's own loaders if ComfyUI streams weights to "
                f"the GPU ({error}); start ComfyUI with --disable-dynamic-vram"
            ) from error
        if self._compute_dtype() == torch.float16:
            # In fp16, small gradients would become zero.
            self.patcher.set_model_compute_dtype(torch.bfloat16)

    @property
    def model(self) -> BaseModel:
        return self.patcher.model

    @property
    def module(self) -> nn.Module:
        """The denoiser itself."""
        return self.model.diffusion_model

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    @cached_property
    def schedule(self) -> Schedule:
        return schedule_of(self.patcher.get_model_object("model_sampling"))

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The linear layers of the denoiser by name."""
        return {name: m for name, m in self.module.named_modules() if is_linear(m)}

    @torch.no_grad()
    def weight(self, name: str) -> Tensor:
        """The weight of a linear layer in fp32, from whatever format ComfyUI keeps it in."""
        module: Any = self.modules[name]
        weight = module.weight.detach()
        if hasattr(module, "convert_weight"):
            weight = module.convert_weight(weight)
        return weight.float()

    @cached_property
    def text_projections(self) -> dict[str, str]:
        """The weights that read the encoded prompt directly -> the name of their input."""
        return {
            f"{name}.weight": text_input
            for name in self.modules
            for pattern, text_input in self.family.projections
            if re.fullmatch(pattern, name)
        }

    @property
    def has_time_axis(self) -> bool:
        """Whether latents are [B, C, 1, h, w], as in models of the architecture of videos."""
        return self.latent_format.latent_dimensions == 3

    @property
    def latent_format(self) -> Any:
        return self.patcher.get_model_object("latent_format")

    @property
    def downscale(self) -> int:
        """The ratio of a picture's edge to its latent's; only newer ComfyUIs know it."""
        known = getattr(self.latent_format, "spacial_downscale_ratio", None)
        return self.family.downscale if known is None else int(known)

    def _compute_dtype(self) -> torch.dtype:
        cast: Any = self.given.get_model_object("manual_cast_dtype")
        return cast or self.given.model.get_dtype()

    @property
    def is_half(self) -> bool:
        """Whether the network calculates in 16 bits."""
        return self._compute_dtype() != torch.float32

    @property
    def is_whole(self) -> bool:
        """Whether ComfyUI has not moved a part of the weights off the GPU."""
        return not self.model.model_lowvram

    @torch.inference_mode(False)
    def make_trainable(self) -> None:
        """Freeze the weights, and replace those that were loaded in inference mode, one by one:
        autograd refuses them even though they are frozen.

        Raises:
            UnsupportedError: only a part of the weights is on the GPU.
        """
        if self.model.model_lowvram:
            raise UnsupportedError(
                "model must be on the GPU completely, but ComfyUI has loaded only a part of it; "
                "start ComfyUI without --novram, or use a smaller model"
            )
        for module in self.model.modules():
            inside: Any = (module._parameters, module._buffers)
            for tensors in inside:
                for name, value in tensors.items():
                    if value is not None and value.is_inference():
                        tensors[name] = _own(value)
                    elif value is not None:
                        value.requires_grad_(False)

    def with_axis(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] as the network expects them."""
        return latents.unsqueeze(2) if self.has_time_axis else latents

    def without_axis(self, latents: Tensor) -> Tensor:
        return latents.squeeze(2) if self.has_time_axis else latents


def _own(value: Tensor) -> Tensor:
    copied = value.detach().clone()
    return nn.Parameter(copied, requires_grad=False) if isinstance(value, nn.Parameter) else copied
