"""Options for loading a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..foundation.fields import check_fields, choice, other, whole

PREDICTIONS = ("auto", "epsilon", "v_prediction")
PRECISIONS = ("auto", "fp32", "mixed")
LARGEST_IMAGE = 8192


@dataclass(frozen=True)
class LoadOptions:
    """The user's options for loading a model."""

    vae: Path | None = field(
        default=None,
        metadata=other(
            "the path of a file",
            help="A VAE that replaces the model's own. Only for models in a single file.",
        ),
    )
    image_size: int = field(
        default=0,
        metadata=other(
            f"a multiple of 64 up to {LARGEST_IMAGE}, or 0",
            help="Width and height of the pictures in pixels; 0 is the size that the model was "
            "trained with. A smaller size needs less memory and time, but gives worse pictures.",
            advanced=True,
        ),
    )
    prediction: str = choice(
        "auto",
        PREDICTIONS,
        help="What the model was trained to predict: noise (epsilon) or velocity (v_prediction). "
        "'auto' reads it from the file. If the previews of a Stable Diffusion 2 model look like "
        "noise, choose one of the other two.",
        advanced=True,
    )
    precision: str = choice(
        "auto",
        PRECISIONS,
        help="Numerical precision. 'mixed': the weights that are not trained stay in 16 bits, and "
        "calculations use bfloat16. This needs about half the memory. 'auto': 'mixed' on a GPU "
        "that computes in bfloat16, and for SDXL and larger models on any GPU; otherwise 'fp32'.",
        advanced=True,
    )

    clip_skip: int = whole(
        0,
        least=0,
        most=12,
        help="The last layer of the text encoder to use, counted from its end: 2 for most anime "
        "models of Stable Diffusion 1.5, 0 or 1 for the last layer. Use the same number later in "
        "your own workflows: 2 is -2 in CLIP Set Last Layer. Stable Diffusion 2 and XL always use "
        "the layer before the last, which is their 2.",
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
        """Whether to use mixed precision; ``large`` means a model of SDXL's size."""
        if self.precision == "auto":
            return device.type == "cuda" and (large or _has_bfloat16(device))
        return self.precision == "mixed"


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device has kernels for bfloat16: an Ampere GPU or a newer one. Older ones
    emulate some of them slowly, and lack others."""
    return torch.cuda.get_device_capability(device) >= (8, 0)
