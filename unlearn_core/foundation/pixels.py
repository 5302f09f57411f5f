"""Conversion of images between floats and bytes."""

from __future__ import annotations

from torch import Tensor


def as_bytes(images: Tensor) -> Tensor:
    """Images in 0..1 -> uint8 on the CPU, as in an image file. Values out of range, which resizing
    can produce, are clamped."""
    return images.clamp(0, 1).mul(255).round().byte().cpu()


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 -> images in 0..1."""
    return pixels.float() / 255
