"""How a run uses memory. This is a detail of its execution, not one of its settings: with another
plan it gives the same result except for rounding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..foundation.plurals import count_of


@dataclass(frozen=True)
class Plan:
    """How the memory of a step is limited.

    Attributes:
        micro_batch: number of pictures that go through the model at once. The gradients of a batch
            are added up over such parts. None for the whole batch.
        failed_step: the step that ran out of memory with the previous plan; None if there was none.
        needed_bytes: estimate of the memory for the model and its training; None if unknown.
        available_bytes: the memory of the device for them; None if unknown.
    """

    micro_batch: int | None = None
    failed_step: int | None = None
    needed_bytes: int | None = None
    available_bytes: int | None = None

    def parts(self, count: int) -> list[slice]:
        """The rows of each part of a batch of ``count`` rows."""
        size = max(1, self.micro_batch or count)
        return [slice(start, start + size) for start in range(0, count, size)]

    def after_failure(self, step: int, batch_size: int, reason: str) -> Plan:
        """The plan for another attempt at a step that ran out of memory: half as many pictures at
        once.

        Raises:
            torch.OutOfMemoryError: there was an attempt before, or parts cannot be smaller.
        """
        size = min(self.micro_batch or batch_size, batch_size)
        if self.failed_step is not None or size <= 1:  # 0 in a process without rows
            raise torch.OutOfMemoryError(
                f"Step {step} ran out of memory with {count_of(size, 'picture')} at a time "
                f"({reason}). Choose a scope with 'lora', a smaller batch_size or smaller pictures "
                "(image_size)."
            )
        return replace(self, micro_batch=size // 2, failed_step=step)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """The plan in one sentence; empty if nothing is known about it."""
        if self.failed_step is not None and self.micro_batch is not None:
            return (
                f"Step {self.failed_step} ran out of memory. The run continues with "
                f"{count_of(self.micro_batch, 'picture')} at a time."
            )
        if self.needed_bytes is None or self.available_bytes is None:
            return ""
        size = f", {count_of(self.micro_batch, 'picture')} at a time" if self.micro_batch else ""
        needed, available = gigabytes(self.needed_bytes), gigabytes(self.available_bytes)
        return f"Memory: about {needed} of {available} GB{size}."


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}"
