"""What the unlearning loop needs of a model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

OnStep = Callable[[], None]
"""Called between two pieces of work; whoever wants to cancel raises from it."""


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from.

    Attributes:
        name: what the person calls it; the folder's name.
        family: ``"stable-diffusion"`` or ``"class-conditional"``.
        source: the folder it was loaded from.
        fingerprint: SHA-256 over every weight file, hex; two equal models share it.
        image_size: edge of a picture in pixels.
        denoiser_folder: where in ``source`` the denoiser's weights are, ``"unet"``.
    """

    name: str
    family: str
    source: Path
    fingerprint: str
    image_size: int
    denoiser_folder: str


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts: embeddings [B, L, D], or class labels int64 [B]."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice | list[int]) -> Conditioning:
        return Conditioning(self.values[index])

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        return Conditioning(torch.cat([part.values for part in parts]))


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

    @property
    def timesteps(self) -> int:
        """How many noise levels the model was trained on; t is in 0..timesteps-1."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Frozen encoding of each prompt, the empty one included where the family has it.

        Raises:
            ValueError: when the family cannot express a prompt.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1 to latents [B, C, h, w], scaled as the denoiser expects."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in 0..1, on the CPU."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B, C, h, w] for timesteps t int64 [B]."""
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
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Latents [B, C, h, w] drawn for each prompt; a seed gives the same one in any batch."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The denoiser's alone."""
        ...

    def trainable_copy(self, names: Sequence[str]) -> Self:
        """A new handle that owns copies of the named parameters and shares every other weight."""
        ...

    def changed_tensors(self) -> dict[str, Tensor]:
        """The denoiser's tensors that differ from the loaded file, by their name in it."""
        ...
