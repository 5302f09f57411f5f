"""The trained weights that read the prompt: their first edit, and the protection of the retain
prompts in every step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .prompt_products import Products
from .settings import UnlearnSettings
from .uce import RIDGE, change, edited_weights, products_for, solved

MOST_GAIN = 8.0
"""Slightly more than the largest gain on EmojiCanvas, where the learning rates were measured."""


def prepare(
    model: ModelHandle,
    trained: Sequence[Tensor],
    base: ModelHandle,
    pairs: PromptPairs,
    settings: UnlearnSettings,
    progress: Progress | None = None,
) -> list[Tensor | None]:
    """Edit the trained weights that read the prompt (``warm_start``), and compute the matrices of
    ``prompt_protection``.

    Args:
        model: a trainable copy of ``base``; of its weights only those in ``trained`` change.

    Returns:
        For each of ``trained`` the matrix [D, D] of ``protection``, on its device; None if its
        steps are not protected.
    """
    unprotected: list[Tensor | None] = [None] * len(trained)
    weights = dict(model.named_parameters())
    trained_ids = {id(parameter) for parameter in trained}
    inputs = {n: i for n, i in model.text_projections().items() if id(weights[n]) in trained_ids}
    # Below 1, ``saliency`` keeps single weights as they are; both edits would change all of them.
    if not inputs or settings.saliency < 1:
        return unprotected
    if not settings.warm_start and not settings.prompt_protection:
        return unprotected

    products = products_for(base, pairs, settings.uce_tokens, progress)
    if settings.warm_start:
        _edit(weights, base, products, settings.warm_start_weight, inputs)
    if not settings.prompt_protection:
        return unprotected
    matrices = {  # one copy on the device for all weights that read the same input
        name: protection(each, settings.prompt_protection).to(trained[0])
        for name, each in products.items()
    }
    of_weight = {id(weights[name]): matrices[text_input] for name, text_input in inputs.items()}
    return [of_weight.get(id(parameter)) for parameter in trained]


def protection(products: Products, weight: float) -> Tensor:
    """The matrix ``M`` [D, D], in fp64, that protects the retain prompts from a change ``D`` of a
    weight: ``D M``, with

    ``M = sum_i c_i c_i^T (sum_i c_i c_i^T + weight sum_j c_j c_j^T + RIDGE I)^-1``,

    minimises ``sum_i ||D M c_i - D c_i||^2 + weight sum_j ||D M c_j||^2 + RIDGE ||D M||^2``, where
    ``c_i`` are the embeddings of the concept and ``c_j`` those of the retain prompts: the outputs
    for the concept change as trained, those for everything else as little as possible. It is the
    least-squares problem of UCE with a trained target. It protects all prompts, although only some
    of them have pictures to train on.

    Where an embedding of the concept is close to a retained one, ``M`` enlarges a change, because
    only the small part that both do not share may change. ``RIDGE`` is raised until the root mean
    square gain is at most ``MOST_GAIN``.

    Raises:
        ValueError: see ``uce.solved``.
    """
    ridge = RIDGE
    while True:
        total = products.edited + weight * products.preserved + ridge * products.identity
        matrix = solved(total, products.edited).T  # both are symmetric
        if matrix.norm() <= MOST_GAIN * math.sqrt(len(matrix)):
            return matrix
        ridge *= 4


@torch.no_grad()
def _edit(
    weights: Mapping[str, Tensor],
    base: ModelHandle,
    products: Mapping[str, Products],
    retain_weight: float,
    names: Mapping[str, str],
) -> None:
    matrices = {name: change(each, retain_weight) for name, each in products.items()}
    edited = edited_weights(base, matrices)
    for name in names:
        weights[name].copy_(edited[name])
