"""The free memory of a device, and what happens when it runs out."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import torch

MAIN_MEMORY = Path("/proc/meminfo")  # on Linux


def free_bytes(device: torch.device) -> int | None:
    """The memory that new tensors can use; None on devices that do not report it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "cpu" and MAIN_MEMORY.is_file():
        kilobytes = re.search(r"MemAvailable:\s+(\d+) kB", MAIN_MEMORY.read_text(encoding="ascii"))
        return None if kilobytes is None else 1024 * int(kilobytes[1])
    return None


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
