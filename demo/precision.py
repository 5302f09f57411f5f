"""The number format that training uses: bf16 where the processor has it, otherwise fp32."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to bf16, or to nothing on a processor that would have to emulate it.

    An emulated bf16 step on a CPU takes about 14 times as long as one in fp32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cpu":
        # PyTorch has no public function for this.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
