"""Accelerators, and what not all of them can do."""

from __future__ import annotations

import torch
from torch import Tensor


def best_device() -> str:
    """The accelerator of this machine: ``"cuda"`` (NVIDIA, and AMD with ROCm), ``"mps"`` (Apple) or
    ``"xpu"`` (Intel); without one, ``"cpu"``."""
    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps), ("xpu", torch.xpu)):
        if backend.is_available():
            return name
    return "cpu"


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in double precision, on the CPU: Apple's GPUs do not support it."""
    return tensor.cpu().double()
