"""How a run uses memory. This is a detail of its execution, not one of its settings: with another
plan it gives the same result except for rounding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How the memory of a step is limited.

    Attributes:
        micro_batch: number of pictures that go through the model at once. The gradients of a batch
            are added up over such parts. None for the whole batch.
    """

    micro_batch: int | None = None

    def parts(self, count: int) -> list[slice]:
        """The rows of each part of a batch of ``count`` rows."""
        size = max(1, self.micro_batch or count)
        return [slice(start, start + size) for start in range(0, count, size)]
