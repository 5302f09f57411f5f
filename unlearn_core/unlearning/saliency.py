"""SalUn's mask (Fan et al. 2024): only the weights that matter most to the concept may change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..foundation.processes import ALONE, Processes
from ..foundation.progress import Progress
from ..models.protocol import Denoiser
from .batches import Batches
from .plan import Plan


def forget_totals(
    model: Denoiser,
    parameters: Sequence[Tensor],
    batches: Batches,
    plan: Plan,
    progress: Progress,
    processes: Processes = ALONE,
) -> list[Tensor]:
    """The gradient of the training loss on the forget set, summed over this process's rows."""
    totals = [torch.zeros_like(p) for p in parameters]
    for batch in batches.every_forget_row():
        own = batch[processes.share(len(batch))]
        for part in (own[rows] for rows in plan.parts(len(own))):
            error = model.denoise_error(part.latents, part.conditioning, part.noise, part.t)
            loss = error.flatten(1).mean(1).sum()
            for total, gradient in zip(
                totals, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True
            ):
                total.add_(gradient)
            progress.check()
    return totals


def saliency_mask(totals: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mask of the weights with the largest gradients on the forget set: True for a ``share``
    (0..1) of all weights, one boolean tensor per parameter. Weights with zero gradient are never
    selected, so the share may be smaller.

    Args:
        totals: from ``forget_totals``, summed over the processes; only their signs change.
    """
    magnitudes = torch.cat([total.abs_().flatten() for total in totals])
    count = max(1, round(share * len(magnitudes)))
    threshold = magnitudes.kthvalue(len(magnitudes) - count + 1).values
    return [(total >= threshold) & (total > 0) for total in totals]
