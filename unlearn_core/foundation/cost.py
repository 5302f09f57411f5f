"""The cost of a run: time, denoiser passes and memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

DRAWING, TRAINING, JUDGING = KINDS_OF_WORK = ("drawing", "unlearning", "evaluating")


def _none() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Cost:
    """The cost of some work.

    Attributes:
        seconds: the duration of each phase.
        passes: denoiser passes for each of ``KINDS_OF_WORK``. They measure the cost independently
            of the machine: one picture through the denoiser once is one pass, and a backward pass
            counts as two. Pictures from the cache count as if they had been drawn.
        peak_bytes: the largest amount of memory in use, see ``peak_bytes``; None if unknown.
        memory_plan: how unlearning used memory, with its estimate; None without training steps.
    """

    seconds: Mapping[str, float] = field(default_factory=_none)
    passes: Mapping[str, int] = field(default_factory=_none)
    peak_bytes: int | None = None
    memory_plan: Mapping[str, Any] | None = None

    def __add__(self, other: Cost) -> Cost:
        peaks = [peak for peak in (self.peak_bytes, other.peak_bytes) if peak is not None]
        return Cost(
            _sum(self.seconds, other.seconds),
            _sum(self.passes, other.passes),
            max(peaks, default=None),
            self.memory_plan or other.memory_plan,
        )

    def as_json(self) -> dict[str, Any]:
        """``denoiser_passes``, with their total, ``peak_bytes`` and ``memory_plan``."""
        passes = {work: self.passes.get(work, 0) for work in KINDS_OF_WORK}
        return {
            "denoiser_passes": {**passes, "total": sum(passes.values())},
            "peak_bytes": self.peak_bytes,
            "memory_plan": self.memory_plan,
        }


NO_COST = Cost()


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def peak_bytes(device: torch.device) -> int | None:
    """The largest amount of memory that this process has used: that of the tensors on a CUDA
    device, elsewhere all of the process's main memory. None on systems that do not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
