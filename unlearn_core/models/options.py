"""How a model is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..foundation.fields import check_fields, choice, other

PREDICTIONS = ("auto", "epsilon", "v_prediction")
PRECISIONS = ("auto", "fp32", "mixed")
LARGEST_IMAGE = 8192


@dataclass(frozen=True)
class LoadOptions:
    """What a person may choose when a model is opened."""

    vae: Path | None = field(
        default=None,
        metadata=other(
            "the path of a file", help="Another VAE than the model's own; for single files."
        ),
    )
    image_size: int = field(
        default=0,
        metadata=other(
            f"a multiple of 64 up to {LARGEST_IMAGE}, or 0",
            help="Edge of the pictures in pixels; 0 is what the model was made for. Smaller needs "
            "less memory and time, and draws worse.",
            advanced=True,
        ),
    )
    prediction: str = choice(
        "auto",
        PREDICTIONS,
        help="What the model was trained to predict; 'auto' reads it from the file. Set it if "
        "previews of a Stable Diffusion 2 model look like noise.",
        advanced=True,
    )
    precision: str = choice(
        "auto",
        PRECISIONS,
        help="How exactly it calculates. 'mixed': frozen weights keep their 16 bits, and bfloat16 "
        "does the arithmetic, which takes about a third less memory. 'auto' is 'mixed' for SDXL "
        "on a GPU, else 'fp32'.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        if self.vae is not None and not isinstance(self.vae, (str, Path)):
            raise ValueError(f"vae must be the path of a file, got {self.vae!r}")
        size = self.image_size
        if (
            not isinstance(size, int)
            or isinstance(size, bool)
            or size % 64
            or not 0 <= size <= LARGEST_IMAGE
        ):
            raise ValueError(
                f"image_size must be a multiple of 64 up to {LARGEST_IMAGE}, "
                f"or 0 for the model's own, got {size!r}"
            )
        check_fields(self)

    def is_mixed(self, large: bool, device: torch.device) -> bool:
        """Whether to work in mixed precision; ``large``: the model is SDXL's size."""
        if self.precision == "auto":
            return large and device.type == "cuda"
        return self.precision == "mixed"
