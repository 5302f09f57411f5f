"""Unified Concept Editing (Gandikota et al. 2024): a closed-form edit of the weights that read the
prompt, as a rule the keys and values of cross-attention.

It needs no training steps and no pictures. It is a method of its own and a good starting point for
the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..foundation.finite import non_finite
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .prompt_products import Products, prompt_products
from .settings import UCE

RIDGE = 0.5  # pull of the weights towards their original values, as in the authors' code


def edits(
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The weights of ``text_projections`` after the edit, by name.

    Args:
        retain_weight: weight of the preserved prompts.
        tokens: one of ``UCE_TOKENS``: the tokens that the edit changes.
        progress: ticks once per pair of prompts.

    Raises:
        ValueError: the model has no such weights.
    """
    return edited_weights(base, changes(base, pairs, retain_weight, tokens, progress))


def changes(
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """For each text input the matrix [D, D], in fp64, whose product with ``W^T`` is ``W'^T``, for
    every weight ``W`` that reads this input. The arguments and errors are those of ``edits``."""
    products = products_for(base, pairs, tokens, progress)
    return {name: change(each, retain_weight) for name, each in products.items()}


def change(products: Products, retain_weight: float) -> Tensor:
    """The matrix [D, D] whose product with ``W^T`` is ``W'^T``, where
    ``W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1``.

    Raises:
        ValueError: see ``solved``.
    """
    fixed = retain_weight * products.preserved + RIDGE * products.identity
    return solved(products.edited + fixed, products.mapped + fixed)


def solved(system: Tensor, right: Tensor) -> Tensor:
    """The solution ``X`` of ``system X = right``, where the system is a sum of squares and at least
    ``RIDGE I``. Its smallest eigenvalue is therefore at least ``RIDGE``, and its largest at most
    its trace: their ratio bounds the condition number.

    Raises:
        ValueError: the system or its solution is not finite, or rounding decides the solution.
    """
    trace = system.trace().item()
    largest = RIDGE / (len(system) * torch.finfo(system.dtype).eps)
    if not trace < largest:
        raise ValueError(
            f"the closed-form edit is ill-conditioned ({trace:.2g}, the limit is {largest:.2g}): "
            "the model's embeddings of the prompts are very large or not finite, or a weight of "
            "the preserved prompts is too high; lower retain_weight, warm_start_weight and "
            "prompt_protection, or choose another model"
        )
    solution = torch.linalg.solve(system, right)
    if fault := non_finite([("solution", solution)]):
        raise ValueError(f"the closed-form edit is ill-conditioned ({fault}); choose another model")
    return solution


def edited_weights(base: ModelHandle, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``text_projections`` after a change by these matrices, in fp64, by name.

    Raises:
        ValueError: a weight would not be finite in fp32.
    """
    weights = dict(base.named_parameters())
    edited = {
        name: (matrices[text_input] @ weights[name].detach().T.cpu().double()).T
        for name, text_input in base.text_projections().items()
    }
    refuse_non_finite((name, weight.float()) for name, weight in edited.items())
    return edited


def refuse_non_finite(edited: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse an edit with NaN or infinity.

    Raises:
        ValueError: names the weight.
    """
    if fault := non_finite(edited):
        raise ValueError(
            f"the closed-form edit gives {fault}, so it is not used; raise retain_weight, or "
            "choose replacements that are closer to the concept"
        )


def products_for(
    base: ModelHandle, pairs: PromptPairs, tokens: str, progress: Progress | None = None
) -> dict[str, Products]:
    """The products of each text input that the edit needs.

    Args:
        tokens: one of ``UCE_TOKENS``: the tokens that the edit changes.
        progress: ticks once per pair of prompts.

    Raises:
        ValueError: the model has no weights that read the prompt.
    """
    text_inputs = set(edited_names(base).values())
    return prompt_products(base, pairs, tokens, text_inputs, progress or Progress())


def edited_names(model: ModelHandle) -> dict[str, str]:
    """The weights that ``edits`` changes and the text input of each.

    Raises:
        ValueError: the model has no such weights.
    """
    names = model.text_projections()
    if not names:
        raise ValueError(
            f"method {UCE!r} needs layers that read the words of a prompt one by one, such as "
            f"cross-attention, which {model.info.name!r} does not have; choose another method"
        )
    return names
