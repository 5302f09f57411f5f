"""SalUn's mask (Fan et al. 2024): only the weights that matter most to the concept may change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from .batches import Batches


def saliency_mask(
    model: ModelHandle,
    parameters: Sequence[Tensor],
    batches: Batches,
    share: float,
    progress: Progress | None = None,
) -> list[Tensor]:
    """True for the ``share`` (0..1) of all weights where the training loss on the forget set has
    its steepest gradients, one boolean tensor a parameter. Fewer, where it has no gradient in so
    many: what the concept does not touch at all is never chosen."""
    progress = progress or Progress()
    totals = [torch.zeros_like(p) for p in parameters]
    for batch in batches.every_forget_row():
        error = model.denoise_error(batch.latents, batch.conditioning, batch.noise, batch.t)
        loss = error.flatten(1).mean(1).sum()
        for total, gradient in zip(
            totals, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True
        ):
            total.add_(gradient)
        progress.check()
    steepness = torch.cat([total.abs_().flatten() for total in totals])
    kept = max(1, round(share * len(steepness)))
    threshold = steepness.kthvalue(len(steepness) - kept + 1).values
    return [(total >= threshold) & (total > 0) for total in totals]
