"""Training data: rows of latents and encoded prompts, in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.protocol import Conditioning
from ..prompts.pairs import PromptPairs


@dataclass(frozen=True, eq=False)
class Rows:
    """Pictures of one size and their prompts, on the CPU: a device has memory for a batch of them,
    but not for thousands.

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
    """Forget and retain rows; row i of both comes from the same prompt pair.

    Attributes:
        concepts: the index of each row's concept, int64 [N].
        correspond: whether row i of both shows the same content; False for the two sets of a look.
    """

    forget: Rows
    retain: Rows
    concepts: Tensor
    correspond: bool = True


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """The training data of a run.

    Attributes:
        paired: the forget set and its parallels, one part per picture size.
        retain: the retain set, also by size; usually the parallels and the user's own pictures.
        includes_parallels: whether the retain set contains the parallels.
    """

    pairs: PromptPairs
    paired: tuple[PairedRows, ...]
    retain: tuple[Rows, ...]
    includes_parallels: bool = True
