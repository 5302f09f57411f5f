"""Class-conditional diffusion: the prompt names a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..foundation.progress import Progress
from . import autoencoder
from .denoiser import DenoiserHandle, sample_dpm_solver, seeded_noise
from .errors import UnsupportedError
from .protocol import Conditioning


@dataclass(frozen=True, eq=False)
class _ClassHandle(DenoiserHandle):
    """``class_names[i]`` names label ``i``, with synonyms behind commas as ImageNet has them."""

    class_names: tuple[str, ...]

    @property
    def size_step(self) -> int | None:
        return None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = int(self.denoiser.config["sample_size"])
        return (int(self.denoiser.config["in_channels"]), edge, edge)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        output = self.denoiser(latents_t, t, class_labels=conditioning.values).sample
        # Models with a learned variance predict it in as many further channels; no objective and
        # no sampler uses it.
        return output[:, : latents_t.shape[1]]

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        labels = [self._label(prompt) for prompt in prompts]
        return Conditioning(torch.tensor(labels, device=self.device))

    def word_embedding(self, word: str) -> Tensor:
        raise self._no_words()

    def with_word(self, word: str, embedding: Tensor) -> Self:
        raise self._no_words()

    def _no_words(self) -> UnsupportedError:
        return UnsupportedError(f"{self.info.name!r} knows classes and reads no words")

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], int]]:
        """Of each name, with its label; ImageNet has more of them than ``re`` remembers."""
        return [
            (re.compile(rf"(?<!\w){re.escape(name.strip())}(?!\w)", re.I), label)
            for label, names in enumerate(self.class_names)
            for name in names.split(",")
        ]

    def _label(self, prompt: str) -> int:
        found = [
            (match.span(), label)
            for pattern, label in self._patterns
            for match in pattern.finditer(prompt)
        ]
        # "cat" within "tiger cat" is not named by itself.
        named = {
            label
            for (start, end), label in found
            if not any(a <= start and end <= b and b - a > end - start for (a, b), _ in found)
        }
        if len(named) != 1:
            known = ", ".join(self.class_names[:20]) + (" …" if len(self.class_names) > 20 else "")
            raise UnsupportedError(
                f"prompt must name exactly one class of {self.info.name!r} ({known}), "
                f"got {prompt!r}"
            )
        return named.pop()


@dataclass(frozen=True, eq=False)
class ClassConditionalHandle(_ClassHandle):
    """diffusers' ``UNet2DModel`` with class labels, in pixel space."""

    def encode_images(self, images: Tensor) -> Tensor:
        channels = self.latent_shape[0]
        pictures = images.mean(1, keepdim=True) if channels == 1 else images
        return pictures.to(self.device) * 2 - 1

    def decode_latents(self, latents: Tensor) -> Tensor:
        images = latents.float().cpu().add(1).div(2).clamp(0, 1)
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

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
        noise = seeded_noise(seeds, latent_shape or self.latent_shape).to(self.device)
        classes = self.encode_prompts(prompts)

        def predict(latents_t: Tensor, t: Tensor) -> Tensor:
            return self.predict(latents_t, classes, t)

        return sample_dpm_solver(
            self.scheduler_config, noise, predict, steps, progress, in_pixel_space=True
        )


@dataclass(frozen=True, eq=False)
class DiTHandle(_ClassHandle):
    """diffusers' ``DiTTransformer2DModel`` (Peebles and Xie 2023) on an autoencoder's latents."""

    vae: Any

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.base, self.vae)

    def _label(self, prompt: str) -> int:
        # The label after the last stands for none of the classes, as the empty prompt does.
        return super()._label(prompt) if prompt.strip() else len(self.class_names)

    def encode_images(self, images: Tensor) -> Tensor:
        return autoencoder.encode(self.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return autoencoder.decode(self.vae, latents)

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
        noise = seeded_noise(seeds, latent_shape or self.latent_shape).to(self.device)
        classes = self.encode_prompts(prompts)
        nothing = self.encode_prompts([""] * len(prompts))
        predict = self.guided(classes, nothing, guidance_scale)
        return sample_dpm_solver(self.scheduler_config, noise, predict, steps, progress)
