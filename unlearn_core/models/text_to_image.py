"""The common part of the families with a text encoder and an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from . import autoencoder
from .denoiser import DenoiserHandle
from .protocol import Embeddings, Vocabulary
from .text import TextEncoder
from .weights import move, tensors_of


@dataclass(frozen=True, eq=False)
class TextToImageHandle(DenoiserHandle):
    """A denoiser with its frozen text encoders and autoencoder."""

    vae: Any
    text: TextEncoder

    def encoders(self) -> list[Tensor]:
        """The tensors of the text encoders and the autoencoder, which training does not need."""
        return tensors_of(network for network in self.networks() if network is not self.base)

    def release_encoders(self) -> None:
        """Move the text encoders and the autoencoder to main memory. They return as soon as this
        handle or a copy encodes or decodes something."""
        if self.device.type != "cpu" and self.vae.device.type != "cpu":
            move(self.encoders(), torch.device("cpu"))

    def _return_encoders(self) -> None:
        if self.device.type != "cpu":
            move([t for t in self.encoders() if t.device != self.device], self.device)

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        self._return_encoders()
        with self.autocast():
            return self.text.encode(prompts)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        self.text.check(prompts)

    def word_embedding(self, word: str) -> Tensor:
        self._return_encoders()
        return self.text.word_embedding(word)

    def with_word(self, word: str, embedding: Tensor) -> Self:
        return replace(self, text=self.text.with_word(word, embedding))

    def vocabulary(self) -> Vocabulary:
        self._return_encoders()
        return self.text.vocabulary()

    def encode_images(self, images: Tensor) -> Tensor:
        self._return_encoders()
        return autoencoder.encode(self.vae, images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        self._return_encoders()
        return autoencoder.decode(self.vae, latents)

    def autocast(self) -> AbstractContextManager[Any]:
        if not self.info.mixed:
            return nullcontext()  # some devices do not support autocast, not even disabled
        return torch.autocast(self.device.type, torch.bfloat16)
