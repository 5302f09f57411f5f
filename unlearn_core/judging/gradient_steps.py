"""The optimizer steps of attacks that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..models.protocol import ModelHandle
from .curves import Target

BATCH = 8  # pictures per step

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rows of the pictures [B], noise [B, C, h, w], timesteps [B]) -> a scalar."""


def gradient_steps(
    model: ModelHandle,
    loss: Loss,
    parameters: Sequence[Tensor],
    total: int,
    learning_rate: float,
    target: Target,
) -> Iterator[int]:
    """Adam's steps, without end; yields the number of steps so far.

    Args:
        total: number of pictures, from which each step draws a batch. Of the batch, no more than
            the sampler's ``batch_size`` are passed forward and backward at once.
    """
    generator = torch.Generator().manual_seed(target.seed)
    optimizer = torch.optim.Adam(parameters, learning_rate)
    batch, step = min(BATCH, total), 0
    while True:
        rows = torch.randperm(total, generator=generator)[:batch]
        noise = torch.randn(batch, *model.latent_shape, generator=generator)
        t = model.times(torch.rand(batch, generator=generator))
        for part in torch.arange(batch).split(target.settings.generation.batch_size):
            part_noise, part_t = noise[part].to(model.device), t[part].to(model.device)
            with torch.enable_grad():
                value = loss(rows[part], part_noise, part_t) * (len(part) / batch)
                torch.autograd.backward(value, inputs=list(parameters))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        target.progress.check()
        yield step


def at(efforts: Sequence[int], steps: Iterator[int]) -> Iterator[int]:
    """Those of the steps that are among the efforts, up to the largest effort."""
    for step in steps:
        if step in efforts:
            yield step
        if step >= max(efforts):
            return
