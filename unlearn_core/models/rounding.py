"""The trained weights in the dtype of the model's file, in which they are saved.

In 16 bits most small changes are less than half the distance between two numbers, and rounding to
the nearest one would undo them. So a weight is rounded up or down at random, with probabilities by
which its expected value is exact (stochastic rounding, Gupta et al. 2015). The random numbers
depend only on the weight's name: a model is the same whenever it is saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.safetensors_file import DTYPES, read_header
from .folder_parts import weight_files_of
from .protocol import ModelHandle, ModelInfo
from .single_file import ldm_names, read_checkpoint, unet_config
from .tensors import with_tensors

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rounding:
    """What 16 bits do to a change.

    Attributes:
        unchanged: share of the trained weights that get their old value back, 0..1.
        captured: the saved change along the trained one, as a share of it; 1 is all of it.
    """

    unchanged: float
    captured: float

    def __str__(self) -> str:
        return (
            f"in 16 bits, {100 * self.unchanged:.0f} % of the trained weights get their old value "
            f"back; rounding at random keeps {100 * self.captured:.1f} % of the change"
        )


def rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the dtype of its file, on the CPU.

    Args:
        name: of the weight, in diffusers.
    """
    nearest = value.detach().cpu().to(dtype)
    if dtype not in HALF or value.dtype in HALF:
        return nearest
    if not nearest.isfinite().all():
        return value  # outside the dtype's range, which the writer reports
    exact = value.detach().cpu().float()
    down, up = (torch.tensor(sign * torch.inf, dtype=dtype) for sign in (-1, 1))
    low = torch.where(nearest.float() > exact, torch.nextafter(nearest, down), nearest)
    high = torch.nextafter(low, up)
    share = (exact - low.float()) / (high.float() - low.float())
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    chance = torch.rand(exact.shape, generator=torch.Generator().manual_seed(seed))
    choice = torch.where(chance < share, high, low)
    return torch.where(choice.isfinite(), choice, nearest)  # the largest number has one neighbour


def stored_dtypes(info: ModelInfo) -> dict[str, torch.dtype]:
    """diffusers' name -> dtype on disk, for each weight of the denoiser; empty for a model that
    another program loaded."""
    if info.source is None:
        return {}
    if info.source.is_file():
        header, family = read_checkpoint(info.source)
        names = ldm_names(header, unet_config(header, family))
        return {name: DTYPES[header.tensors[key].dtype] for name, key in names.items()}
    entries = {
        name: entry.dtype
        for file in weight_files_of(info.source / info.denoiser_folder)
        for name, entry in read_header(file).tensors.items()
    }
    return {name: DTYPES[code] for name, code in entries.items() if code in DTYPES}


def as_saved(model: ModelHandle) -> ModelHandle:
    """The model with its trained weights as Save Checkpoint stores them by default. A model with
    LoRA layers stays as it is: merging them could take as much memory as the model."""
    if model.lora_layers():
        return model
    halves = _halves(model)
    changed = model.changed_tensors() if halves else {}
    names = [name for name in changed if name in halves]
    if not names:
        return model
    return with_tensors(
        model, {name: rounded(name, changed[name], halves[name]).float() for name in names}
    )


def measure_rounding(model: ModelHandle, base: ModelHandle) -> Rounding | None:
    """What saving in the dtypes of the model's file does to the change; None if all trained weights
    have more than 16 bits there."""
    halves = _halves(model)
    changed = model.changed_tensors() if halves else {}
    before = dict(base.named_parameters())
    unchanged = count = 0
    along = total = 0.0
    for name in changed:
        if name in halves:
            value = changed[name].detach().cpu().float()
            old = before[name].detach().cpu().float()
            saved = rounded(name, value, halves[name]).float()
            unchanged += int((saved == old).sum())
            count += value.numel()
            along += ((saved - old) * (value - old)).sum().item()
            total += (value - old).square().sum().item()
    return Rounding(unchanged / count, along / total) if total else None


def _halves(model: ModelHandle) -> Mapping[str, torch.dtype]:
    return {name: dtype for name, dtype in stored_dtypes(model.info).items() if dtype in HALF}
