"""What the unlearning loop needs of a model, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from ..foundation.progress import Progress


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from.

    Attributes:
        name: what the person calls it; the name of its folder or file.
        family: ``"sd1"``, ``"sd2"``, ``"sdxl"``, ``"stable-diffusion"`` for one of other sizes,
            ``"class-conditional"`` or ``"dit"``.
        source: the folder or file it was loaded from.
        fingerprint: SHA-256 over every weight file, hex; two equal models share it. A single file's
            is the hash that other programs know it by.
        image_size: edge of a picture in pixels.
        prediction: what the denoiser predicts: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
        denoiser_folder: where in ``source`` the denoiser's weights are, ``"unet"``; empty for a
            single file.
        mixed: whether frozen weights keep 16 bits and bfloat16 does the arithmetic.
        vae: SHA-256 of the file of a VAE that stands in for the model's own, hex; else empty.
    """

    name: str
    family: str
    source: Path
    fingerprint: str
    image_size: int
    prediction: str
    denoiser_folder: str
    mixed: bool = False
    vae: str = ""


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts: embeddings [B, L, D], or class labels int64 [B]; SDXL adds pooled
    embeddings [B, P]."""

    values: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice | list[int]) -> Conditioning:
        pooled = None if self.pooled is None else self.pooled[index]
        return Conditioning(self.values[index], pooled)

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Conditioning(self.values.to(device), pooled)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of all parts, which must be of one model."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.values for part in parts]), torch.cat(pooled) if pooled else None
        )


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """A low-rank change of one weight: ``alpha / r * up @ down`` is added to it.

    Attributes:
        down: [r, in], or [r, in, kh, kw] of a convolution.
        up: [out, r], or [out, r, 1, 1].
    """

    down: Tensor
    up: Tensor
    alpha: float


@runtime_checkable
class ModelHandle(Protocol):
    """A diffusion model. Handles are never changed in place: ``trainable_copy`` makes a new one."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        ...

    def times(self, levels: Tensor) -> Tensor:
        """Noise levels [B] in 0..1, from none to all, as this family's own times t [B]."""
        ...

    @property
    def size_step(self) -> int | None:
        """Edges of pictures may be any multiple of this, in pixels; None: one size only."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Frozen encoding of each prompt, the empty one included where the family has it.

        Raises:
            UnsupportedError: the family cannot express a prompt.
        """
        ...

    def word_embedding(self, word: str) -> Tensor:
        """What the text encoders look the word up as, [E]; a mean where it is several tokens.

        Raises:
            UnsupportedError: the family reads no words.
        """
        ...

    def with_word(self, word: str, embedding: Tensor) -> Self:
        """A new handle, sharing every weight, for which ``word`` means ``embedding`` [E]; prompts
        are encoded with gradient towards it where it asks for one (textual inversion).

        Raises:
            UnsupportedError: the family reads no words, or the word is not a single token.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w], scaled as the denoiser expects."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, C, h, w] for times t [B], as ``times`` gives them."""
        ...

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        """The denoiser's raw output [B, C, h, w], with gradient."""
        ...

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Squared error [B, C, h, w] of ``predict`` against this family's own target."""
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
        """Latents [B, C, h, w] drawn for each prompt; a seed gives the same one in any batch.

        Args:
            latent_shape: of another size than the model's own, where ``size_step`` allows it.
            progress: checked after each denoising step.
        """
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The denoiser's alone."""
        ...

    def parameters_in(self, scope: str) -> list[str]:
        """Names of the parameters in one of ``SCOPES``, in the model's own order; none where the
        model has no such layers."""
        ...

    def text_projections(self) -> list[str]:
        """Names of the weights that turn the encoded prompt into the keys and values of
        cross-attention; none without cross-attention."""
        ...

    def trainable_copy(self, names: Sequence[str]) -> Self:
        """A new handle that owns copies of the named parameters and shares every other weight."""
        ...

    def lora_copy(self, names: Sequence[str], rank: int, alpha: float, seed: int) -> Self:
        """A new handle that shares every weight and has trainable low-rank layers beside the named
        ones (Hu et al. 2021), which start without effect.

        Raises:
            ValueError: it has such layers already.
        """
        ...

    def lora_layers(self) -> dict[str, LoraLayer]:
        """The layers that ``lora_copy`` added, by the name of the module that each changes."""
        ...

    def own_tensors(self) -> Sequence[Tensor]:
        """All parameters and buffers of a loaded model; of a copy, those that it does not share
        with the loaded model."""
        ...

    def changed_tensors(self) -> Mapping[str, Tensor]:
        """The denoiser's tensors that differ from the loaded model's, by diffusers' names."""
        ...
