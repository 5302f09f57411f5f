"""Pictures as bytes and as numbers."""

from __future__ import annotations

from torch import Tensor


def as_bytes(images: Tensor) -> Tensor:
    """Images in 0..1 -> uint8 on the CPU, what a picture file would hold. What lies beyond, as a
    picture that was enlarged may have it, becomes the nearest colour there is."""
    return images.clamp(0, 1).mul(255).round().byte().cpu()


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 -> images in 0..1."""
    return pixels.float() / 255
