"""Find NaN and infinity in tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The first tensor that holds NaN or infinity, as words such as ``NaN in tensor 'bias'``; empty
    if all numbers are finite. Reads each tensor once and needs no memory."""
    for name, tensor in tensors:
        if kind := kind_of(tensor):
            return f"{kind} in tensor {name!r}"
    return ""


@torch.no_grad()
def kind_of(tensor: Tensor) -> str:
    """``NaN`` or ``infinity`` if the tensor holds one of them, otherwise empty."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return ""
    if tensor.itemsize == 1:
        tensor = tensor.to(torch.bfloat16)  # torch finds no extremes of 8-bit numbers
    least, most = torch.stack(torch.aminmax(tensor)).tolist()
    if least != least:
        return "NaN"
    return "infinity" if abs(least) == float("inf") or abs(most) == float("inf") else ""
