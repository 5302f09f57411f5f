"""Class-conditional diffusion: a prompt names a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..foundation.lists import split_list
from ..foundation.progress import Progress
from . import autoencoder
from .denoiser import DenoiserHandle, sample_dpm_solver, seeded_noise
from .errors import UnsupportedError
from .guidance import guided
from .layers import FULL
from .protocol import Conditioning, Embeddings, Vocabulary


@dataclass(frozen=True, eq=False)
class _ClassHandle(DenoiserHandle):
    """``class_names[i]`` is the name of label ``i``, with synonyms after commas as in ImageNet."""

    class_names: tuple[str, ...]

    @property
    def size_step(self) -> int | None:
        return None

    @property
    def default_scope(self) -> str:
        return FULL

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = int(self.denoiser.config["sample_size"])
        return (int(self.denoiser.config["in_channels"]), edge, edge)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        assert isinstance(conditioning, Embeddings)
        output = self.denoiser(latents_t, t, class_labels=conditioning.values).sample
        # With a learned variance, the output has twice the channels. The second half is the
        # variance, which neither the objectives nor the sampler use.
        return output[:, : latents_t.shape[1]]

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        labels = [self._label(prompt) for prompt in prompts]
        return Embeddings(torch.tensor(labels, device=self.device))

    def check_prompts(self, prompts: Sequence[str]) -> None:
        self.encode_prompts(prompts)

    def word_embedding(self, word: str) -> Tensor:
        raise self._no_words()

    def with_word(self, word: str, embedding: Tensor) -> Self:
        raise self._no_words()

    def vocabulary(self) -> Vocabulary:
        raise self._no_words()

    def _no_words(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.info.name!r} is class-conditional and has no text encoder for words"
        )

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], int]]:
        """The pattern and label of each class name. Compiled once, because ImageNet has more names
        than the cache of ``re`` holds."""
        return [
            (re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.I), label)
            for label, names in enumerate(self.class_names)
            for name in split_list(names)
        ]

    def _label(self, prompt: str) -> int:
        matches = [
            (match.span(), label)
            for pattern, label in self._patterns
            for match in pattern.finditer(prompt)
        ]
        # A match inside a longer one does not count: "cat" in "tiger cat".
        labels = {
            label
            for (start, end), label in matches
            if not any(a <= start and end <= b and b - a > end - start for (a, b), _ in matches)
        }
        if len(labels) != 1:
            names = ", ".join(self.class_names[:20]) + (" …" if len(self.class_names) > 20 else "")
            raise UnsupportedError(
                f"prompt must name exactly one class of {self.info.name!r} ({names}), "
                f"got {prompt!r}"
            )
        return labels.pop()


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

    def passes_per_step(self, guidance_scale: float) -> int:
        return 1  # without guidance: there is no empty class

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
    """diffusers' ``DiTTransformer2DModel`` (Peebles and Xie 2023), in an autoencoder's latent
    space."""

    vae: Any

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.base, self.vae)

    def _label(self, prompt: str) -> int:
        # The label after the last class is the empty class, which the empty prompt selects.
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
        empty = self.encode_prompts([""] * len(prompts))
        predict = guided(self.predict, classes, empty, guidance_scale)
        return sample_dpm_solver(self.scheduler_config, noise, predict, steps, progress)
