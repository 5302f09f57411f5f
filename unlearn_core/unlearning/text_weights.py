"""The trained weights that read the prompt: their first edit, and the protection of the retain
prompts in every step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..foundation.progress import Progress
from ..models.low_rank import truncated_svd
from ..models.protocol import LoraLayer, ModelHandle
from ..models.weights import lora_names
from ..prompts.pairs import PromptPairs
from .prompt_products import Products
from .settings import UnlearnSettings
from .uce import RIDGE, change, edited_weights, products_for, refuse_non_finite, solved

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
    ``prompt_protection``. For a low-rank layer, see ``low_rank_start``.

    Args:
        model: a trainable copy of ``base``; of its weights only those in ``trained`` change.

    Returns:
        For each of ``trained`` the matrix [D, D] of ``protection``, on its device; None if its
        steps are not protected.
    """
    unprotected: list[Tensor | None] = [None] * len(trained)
    inputs, parameters = base.text_projections(), dict(model.named_parameters())
    trained_ids = {id(parameter) for parameter in trained}
    readers = {  # the trained tensor that reads each input: a weight, or the factor ``down``
        name: parameters[reader]
        for name in inputs
        for reader in (name, lora_names(name)[0])
        if reader in parameters and id(parameters[reader]) in trained_ids
    }
    # Below 1, ``saliency`` keeps single weights as they are; both edits would change all of them.
    if not readers or settings.saliency < 1:
        return unprotected
    if not settings.warm_start and not settings.prompt_protection:
        return unprotected

    products = products_for(base, pairs, settings.uce_tokens, progress)
    matrices: dict[str, Tensor] = {}
    if settings.prompt_protection:
        matrices = {  # one copy on the device for all weights that read the same input
            name: protection(each, settings.prompt_protection).to(trained[0])
            for name, each in products.items()
        }
    edit: dict[str, Tensor] = {}
    if settings.warm_start:
        edit = {n: change(each, settings.warm_start_weight) for n, each in products.items()}
    layers = model.lora_layers()
    if layers:
        weights = dict(base.named_parameters())
        for name in readers:
            layer, text_input = layers[name.removesuffix(".weight")], inputs[name]
            low_rank_start(layer, weights[name], edit.get(text_input), matrices.get(text_input))
    elif edit:
        _edit(readers, base, edit)
    if not matrices:
        return unprotected
    of_tensor = {id(tensor): matrices[inputs[name]] for name, tensor in readers.items()}
    return [of_tensor.get(id(parameter)) for parameter in trained]


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
def low_rank_start(
    layer: LoraLayer, weight: Tensor, edit: Tensor | None, protected: Tensor | None
) -> None:
    """Initialise a layer beside a weight that reads the prompt, in place.

    Its output is zero without an edit. With one, its first components are the largest of the edit,
    and all of ``down`` has rows of the usual size, because Adam changes every number by about the
    learning rate. Changes of ``up`` act only on what ``down`` reads; so if both the initial
    ``down`` and its changes are protected, every change of the layer is.

    Args:
        weight: [out, in], before the edit.
        edit: the matrix of ``uce.change``; None for none.
        protected: the matrix of ``protection``; None for none.

    Raises:
        ValueError: the edited weight is not finite.
    """
    down, up = layer.down.flatten(1), layer.up.flatten(1)  # views
    if protected is not None:
        down.copy_(down @ protected)
    if edit is None:
        return
    identity = torch.eye(len(edit), dtype=edit.dtype)
    delta = weight.detach().cpu().double() @ (edit.T - identity)
    refuse_non_finite([("a low-rank layer", delta.float())])
    u, s, v = truncated_svd(delta, len(down))
    size = 3**-0.5  # root mean square norm of a row of ``initial_down``
    down[: len(s)] = (v.T * size).to(down)
    up[:, : len(s)] = (u * s * (len(down) / layer.alpha / size)).to(up)


@torch.no_grad()
def _edit(readers: Mapping[str, Tensor], base: ModelHandle, matrices: Mapping[str, Tensor]) -> None:
    edited = edited_weights(base, matrices)
    for name, weight in readers.items():
        weight.copy_(edited[name])
