"""How a run uses memory. This is a detail of its execution, not one of its settings: with another
plan it gives the same result except for rounding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..foundation.plurals import count_of

ERROR = 0.15  # of an estimate, relative; kept free for kernels' own memory and fragmentation


@dataclass(frozen=True)
class Plan:
    """How the memory of a step is limited.

    Attributes:
        micro_batch: number of pictures that go through the model at once. The gradients of a batch
            are added up over such parts. None for the whole batch.
        failed_step: the step that ran out of memory with the previous plan; None if there was none.
        needed_bytes: estimate of the memory for the model and its training; None if unknown.
        available_bytes: the memory of the device for them; None if unknown.
        scope, too_large: the smaller scope that was chosen automatically, and the model's own one,
            which needs more memory than there is; None if the scope has not changed.
    """

    micro_batch: int | None = None
    failed_step: int | None = None
    needed_bytes: int | None = None
    available_bytes: int | None = None
    scope: str | None = None
    too_large: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the estimate leaves the reserve for its error; True if nothing is known."""
        if self.needed_bytes is None or self.available_bytes is None:
            return True
        return self.needed_bytes * (1 + ERROR) <= self.available_bytes

    def at_once(self, batch_size: int) -> int:
        """Number of pictures that go through the model at once."""
        return min(self.micro_batch or batch_size, batch_size)

    def parts(self, count: int) -> list[slice]:
        """The rows of each part of a batch of ``count`` rows."""
        size = max(1, self.micro_batch or count)
        return [slice(start, start + size) for start in range(0, count, size)]

    def after_failure(
        self, step: int, batch_size: int, reason: str, smaller_scope: str | None
    ) -> Plan:
        """The plan for another attempt at a step that ran out of memory: half as many pictures at
        once. The scope stays: the finished steps have trained the weights in it.

        Args:
            reason: the message of the device.
            smaller_scope: for the message; None if there is none.

        Raises:
            torch.OutOfMemoryError: there was an attempt before, or parts cannot be smaller.
        """
        size = self.at_once(batch_size)
        if self.failed_step is not None or size <= 1:  # 0 in a process without rows
            cure = "Choose a smaller batch_size or smaller pictures (image_size)."
            if smaller_scope is not None:
                cure = (
                    f"{cure} Or begin anew with scope {smaller_scope!r}: a run that has begun "
                    "cannot change its scope."
                )
            raise torch.OutOfMemoryError(
                f"Step {step} ran out of memory with {count_of(size, 'picture')} at a time "
                f"({reason}). {cure}"
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
        used = f"Memory: about {needed} of {available} GB{size}."
        if self.scope is None:
            return used
        return f"{used} Scope {self.scope!r}, because {self.too_large!r} needs more than there is."


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}"
