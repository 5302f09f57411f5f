"""Pieces of long lists of tensors, for few and large operations with little additional memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Elements in a piece. On the CPU, a piece and its intermediate results fit into the cache. A GPU
# needs larger pieces, because each operation has a fixed cost there.
ON_CPU, ON_GPU = 2**17, 2**22


@dataclass(frozen=True)
class Piece:
    """Several whole tensors of a list, or a part of one.

    Attributes:
        first, last: it consists of ``tensors[first:last]``.
        part: its elements in the only tensor, flattened; None for whole tensors.
        span: its elements in all tensors of the list, joined.
    """

    first: int
    last: int
    part: slice | None
    span: slice

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The piece as a vector; a view of its only tensor if possible, otherwise a copy."""
        flats = [tensor.reshape(-1) for tensor in tensors[self.first : self.last]]
        if self.part is not None:
            return flats[0][self.part]
        return flats[0] if len(flats) == 1 else torch.cat(flats)

    def add(self, tensors: Sequence[Tensor], values: Tensor) -> None:
        """Add a vector to the piece, in place."""
        own = list(tensors[self.first : self.last])
        if self.part is not None:
            own[0].view(-1)[self.part].add_(values)
            return
        parts = values.split([tensor.numel() for tensor in own])
        torch._foreach_add_(own, [v.view(t.shape) for v, t in zip(parts, own, strict=True)])


def pieces(tensors: Sequence[Tensor], whole: Sequence[bool] = ()) -> Iterator[Piece]:
    """Divide a list of tensors, in its order. Only contiguous tensors are split.

    Args:
        whole: for each tensor, whether it must be a piece of its own.
    """
    if not tensors:
        return
    most = ON_CPU if tensors[0].device.type == "cpu" else ON_GPU
    first = start = count = 0  # of the piece that is being collected
    for i, tensor in enumerate(tensors):
        size, alone = tensor.numel(), any(whole[i : i + 1])
        if count and (alone or count + size > most):
            yield Piece(first, i, None, slice(start, start + count))
            first, start, count = i, start + count, 0
        if alone or size > most:
            step = size if alone or not tensor.is_contiguous() else most
            for low in range(0, size, step):
                part = slice(low, min(low + step, size))
                span = slice(start + part.start, start + part.stop)
                yield Piece(i, i + 1, None if step == size else part, span)
            first, start = i + 1, start + size
        else:
            count += size
    if count:
        yield Piece(first, len(tensors), None, slice(start, start + count))
