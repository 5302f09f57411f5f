"""Classifier-free guidance (Ho and Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .protocol import Conditioning

Predict = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, h, w], t [B]) -> output [B, C, h, w]
PredictWith = Callable[[Tensor, Conditioning, Tensor], Tensor]  # a handle's ``predict``


def guided(
    predict: PredictWith, prompt: Conditioning, empty: Conditioning, guidance_scale: float
) -> Predict:
    """``predict`` with guidance towards ``prompt`` and away from ``empty``, which have as many
    rows. At scale 1 the empty prompt is not evaluated."""
    both = Conditioning.cat([empty, prompt])

    def guided_predict(latents_t: Tensor, t: Tensor) -> Tensor:
        if guidance_scale == 1:
            return predict(latents_t, prompt, t)
        outputs = predict(torch.cat([latents_t, latents_t]), both, t.repeat(2))
        unconditional, conditional = outputs.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return guided_predict
