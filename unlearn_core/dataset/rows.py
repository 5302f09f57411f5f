"""What a run learns from: rows of latents and encoded prompts, in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.protocol import Conditioning
from ..prompts.pairs import PromptPairs


@dataclass(frozen=True, eq=False)
class Rows:
    """Pictures of one size and their prompts, on the CPU: a device has room for a batch of them,
    and not for thousands.

    Attributes:
        latents: [N, C, h, w].
        conditioning: encoded prompts, [N, …].
    """

    latents: Tensor
    conditioning: Conditioning

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Conditioning]:
        return self.latents[rows].to(device), self.conditioning[rows].to(device)


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Row i of either comes from one prompt pair.

    Attributes:
        concepts: which of the run's concepts each row is of, int64 [N].
    """

    forget: Rows
    retain: Rows
    concepts: Tensor


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """What a run learns from.

    Attributes:
        paired: the forget set and its parallels, a part for each picture size.
        retain: the retain set, likewise; usually the parallels and what joined them.
        includes_parallels: whether the parallels are in the retain set.
    """

    pairs: PromptPairs
    paired: tuple[PairedRows, ...]
    retain: tuple[Rows, ...]
    includes_parallels: bool = True
