"""How a model is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

PREDICTIONS = ("auto", "epsilon", "v_prediction")
PRECISIONS = ("auto", "fp32", "mixed")
LARGEST_IMAGE = 8192


@dataclass(frozen=True)
class LoadOptions:
    """What a person may choose when a model is opened.

    Attributes:
        vae: another VAE file than the model's own; for single files.
        image_size: edge of pictures in pixels, a multiple of 64; 0 for the model's own.
        prediction: what the denoiser predicts; ``auto`` reads it from the file. For single files.
        precision: ``fp32``; ``mixed``, where weights that are not trained keep their 16 bits and
            bfloat16 does the arithmetic, for Stable Diffusion; ``auto`` is ``mixed`` for SDXL on a
            GPU.
    """

    vae: Path | None = None
    image_size: int = 0
    prediction: str = "auto"
    precision: str = "auto"

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
        for field, known in (("prediction", PREDICTIONS), ("precision", PRECISIONS)):
            value = getattr(self, field)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {value!r}")

    def is_mixed(self, large: bool, device: torch.device) -> bool:
        """Whether to work in mixed precision; ``large``: the model is SDXL's size."""
        if self.precision == "auto":
            return large and device.type == "cuda"
        return self.precision == "mixed"
