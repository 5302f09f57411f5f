"""A device that is out of memory."""

from __future__ import annotations

import gc
from typing import Any

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had too little memory. Not every device has an exception of its own for
    this: the CPU and Apple's GPUs raise a plain ``RuntimeError``."""
    if isinstance(error, torch.OutOfMemoryError):  # also that of ComfyUI
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text
    )


def free_unused(device: torch.device) -> None:
    """Return the memory that torch keeps for later tensors to the device."""
    gc.collect()
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "empty_cache"):
        module.empty_cache()
