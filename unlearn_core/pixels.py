"""Pictures as bytes and as numbers."""

from __future__ import annotations

from torch import Tensor


def as_bytes(images: Tensor) -> Tensor:
    """Images in 0..1 -> uint8 on the CPU, what a picture file would hold."""
    return images.mul(255).round().byte().cpu()


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 -> images in 0..1."""
    return pixels.float() / 255
