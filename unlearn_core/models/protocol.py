"""The interface between models and the unlearning loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from ..foundation.progress import Progress


@dataclass(frozen=True)
class ModelInfo:
    """The origin and the load options of a model.

    Attributes:
        name: the name of its folder or file.
        family: ``"sd1"``, ``"sd2"``, ``"sdxl"``, ``"stable-diffusion"`` for other sizes of it,
            ``"sd3"``, ``"flux"``, ``"class-conditional"`` or ``"dit"``.
        source: the folder or file that it was loaded from; None for a model that another program
            loaded.
        fingerprint: SHA-256 of all weights and settings, hex; equal for equal models. For a single
            file it is the hash of the file, which other programs use too.
        image_size: edge of a picture in pixels.
        prediction: the output of the denoiser: ``"epsilon"``, ``"v_prediction"``, ``"sample"``
            or ``"flow"`` (the velocity, noise minus picture).
        denoiser_folder: the subfolder of ``source`` with the denoiser's weights, such as
            ``"unet"``; empty if ``source`` is not a folder.
        mixed: whether frozen weights stay in 16 bits and calculations use bfloat16.
        vae: SHA-256 of the file of a VAE that replaces the model's own, hex; otherwise empty.
        clip_skip: the last layer of the text encoder that is used, counted from its end; 0 for the
            model's own.
        evaluation: folder of the model's own judge and CLIP; None for the folder ``evaluation`` in
            ``source``, if there is one.
    """

    name: str
    family: str
    source: Path | None
    fingerprint: str
    image_size: int
    prediction: str
    denoiser_folder: str
    mixed: bool = False
    vae: str = ""
    evaluation: Path | None = None
    clip_skip: int = 0


class Conditioning(ABC):
    """Encoded prompts, one row each. Only their own model reads what a row contains."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Tensor | slice | list[int]) -> Self: ...

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """A copy on another device."""

    @abstractmethod
    def text_inputs(self) -> dict[str, Sequence[Tensor]]:
        """The inputs of the model's ``text_projections``, by their names there: [L, D] per row,
        where L may differ from row to row."""

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Any]) -> Self:
        """All rows of all parts."""

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of all parts, which must come from one model."""
        return type(parts[0]).joined(parts)


TOKENS, POOLED = "tokens", "pooled"


@dataclass(frozen=True)
class Embeddings(Conditioning):
    """Text embeddings [B, L, D], or class labels int64 [B]. Some families add pooled embeddings
    [B, P].

    Attributes:
        lengths: the number of rows of each prompt that are its own, if not all are: shorter prompts
            are repeated to the length of the longest. Attention to repeated keys and values gives
            the same result (ComfyUI fills its batches in the same way).
    """

    values: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    @classmethod
    def of_rows(cls, rows: Sequence[Tensor], pooled: Tensor | None = None) -> Self:
        """Embeddings of prompts of different lengths, [L, D] each."""
        lengths = tuple(map(len, rows))
        common = cls.common_length(lengths)
        filled = [cls.filled(row, common) for row in rows]
        return cls(torch.stack(filled), pooled, lengths if len(set(lengths)) > 1 else None)

    @staticmethod
    def common_length(lengths: Sequence[int]) -> int:
        """The length to which prompts of these lengths are filled."""
        return math.lcm(*lengths)

    @staticmethod
    def filled(row: Tensor, length: int) -> Tensor:
        """A prompt's embeddings, filled to a common length."""
        return row.repeat(length // len(row), 1)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice | list[int]) -> Self:
        pooled = None if self.pooled is None else self.pooled[index]
        if self.lengths is None:
            return type(self)(self.values[index], pooled)
        lengths = tuple(torch.tensor(self.lengths)[index].tolist())
        needed = self.common_length(lengths)
        return type(self)(
            self.values[index][:, :needed], pooled, lengths if set(lengths) != {needed} else None
        )

    def to(self, device: torch.device | str) -> Self:
        pooled = None if self.pooled is None else self.pooled.to(device)
        return type(self)(self.values.to(device), pooled, self.lengths)

    def text_inputs(self) -> dict[str, Sequence[Tensor]]:
        rows = list(self.values)
        if self.lengths is not None:
            rows = [row[:length] for row, length in zip(rows, self.lengths, strict=True)]
        inputs: dict[str, Sequence[Tensor]] = {TOKENS: rows}
        if self.pooled is not None:
            inputs[POOLED] = list(self.pooled.unsqueeze(1))
        return inputs

    @classmethod
    def joined(cls, parts: Sequence[Any]) -> Self:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        all_pooled = torch.cat(pooled) if pooled else None
        if len({part.values.shape[1:] for part in parts}) == 1 and not any(
            part.lengths for part in parts
        ):
            return cls(torch.cat([part.values for part in parts]), all_pooled)
        rows = [row for part in parts for row in part.text_inputs()[TOKENS]]
        return cls.of_rows(rows, all_pooled)


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """A low-rank change of one weight: ``alpha / r * up @ down`` is added to it.

    Attributes:
        down: [r, in], or [r, in, kh, kw] for a convolution.
        up: [out, r], or [out, r, 1, 1].
    """

    down: Tensor
    up: Tensor
    alpha: float


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words of a single token, and their input embeddings in the text encoders, [V, E]."""

    words: tuple[str, ...]
    embeddings: Tensor


class Denoiser(Protocol):
    """The part of a model that the objectives need."""

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, C, h, w] at the timesteps t [B] from ``ModelHandle.times``."""
        ...

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        """The denoiser's raw output [B, C, h, w], with gradient."""
        ...

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The value that ``predict`` should have, [B, C, h, w]; linear in ``latents`` and
        ``noise``."""
        ...

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Squared error [B, C, h, w] of ``predict`` with respect to ``target``."""
        ...


@runtime_checkable
class ModelHandle(Denoiser, Protocol):
    """A diffusion model. Handles are immutable: ``trainable_copy`` returns a new one."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        ...

    def times(self, levels: Tensor) -> Tensor:
        """Convert noise levels [B] in 0..1 (0 is no noise) to the family's own timesteps t [B],
        distributed as in its training if the levels are uniform."""
        ...

    @property
    def size_step(self) -> int | None:
        """Width and height of a picture must be multiples of this number of pixels; None if only
        one size is supported."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """The frozen encoding of each prompt, including the empty prompt if the family has one.

        Raises:
            UnsupportedError: the family cannot encode a prompt.
        """
        ...

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Check that ``encode_prompts`` can encode the prompts, without running an encoder.

        Raises:
            UnsupportedError: it cannot.
        """
        ...

    def word_embedding(self, word: str) -> Tensor:
        """The text encoders' input embedding of a word, [E]; the mean of several tokens.

        Raises:
            UnsupportedError: the family has no text encoder.
        """
        ...

    def with_word(self, word: str, embedding: Tensor) -> Self:
        """A new handle with shared weights in which ``word`` has the input embedding ``embedding``
        [E]. If ``embedding`` requires a gradient, prompts are encoded with it (textual inversion).

        Raises:
            UnsupportedError: the family has no text encoder, or the word is not a single token.
        """
        ...

    def vocabulary(self) -> Vocabulary:
        """The words that ``with_word`` accepts, without those of other characters than a-z.

        Raises:
            UnsupportedError: the family has no text encoder whose words can be learned.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w], scaled for the denoiser."""
        ...

    @property
    def can_decode(self) -> bool:
        """Whether ``decode_latents`` works; False for a model without an autoencoder, which can be
        trained all the same."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
        ...

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
        """Latents [B, C, h, w], one per prompt; a seed gives the same latent in any batch.

        Args:
            latent_shape: another size than the model's own, if ``size_step`` allows it.
            progress: checked after each denoising step.
        """
        ...

    def passes_per_step(self, guidance_scale: float) -> int:
        """Denoiser passes per picture and step of ``sample``: one, or two with classifier-free
        guidance."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters of the denoiser only."""
        ...

    def parameters_in(self, scope: str) -> list[str]:
        """Names of the parameters in one of ``SCOPES``, in the model's own order; empty if the
        model has no such layers."""
        ...

    @property
    def default_scope(self) -> str:
        """The scope that ``"auto"`` stands for."""
        ...

    def text_projections(self) -> dict[str, str]:
        """The linear weights that read the encoded prompt directly -> the name of their input in
        ``Conditioning.text_inputs``: the keys and values of cross-attention, or the first layers
        of the text path. Empty if there are none."""
        ...

    def trainable_copy(self, names: Sequence[str]) -> Self:
        """A new handle that owns copies of the named parameters and shares every other weight."""
        ...

    def lora_copy(self, names: Sequence[str], rank: int, alpha: float, seed: int) -> Self:
        """A new handle that shares every weight, with trainable low-rank layers beside the named
        ones (Hu et al. 2021), initially without effect.

        Raises:
            ValueError: the model already has such layers.
        """
        ...

    def fixed_copy(self) -> Self:
        """A new handle with the same predictions, to which ``lora_copy`` can add layers: those of
        this handle become part of its weights."""
        ...

    def lora_layers(self) -> dict[str, LoraLayer]:
        """The layers that ``lora_copy`` added, by the names of the modules that they change."""
        ...

    def own_tensors(self) -> Sequence[Tensor]:
        """All parameters and buffers of a loaded model; for a copy, those that are not shared with
        the loaded model."""
        ...

    def changed_tensors(self) -> Mapping[str, Tensor]:
        """The denoiser's tensors that differ from the loaded model's, by their diffusers names."""
        ...
