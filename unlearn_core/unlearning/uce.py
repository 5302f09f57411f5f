"""Unified Concept Editing (Gandikota et al. 2024): a closed-form edit of the weights that read the
prompt, as a rule the keys and values of cross-attention.

It needs no training steps and no pictures. It is a method of its own and a good starting point for
the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..dataset.rows import TrainingSets
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .alarms import Alarm
from .plan import Plan
from .prompt_products import Products, prompt_products
from .results import StepReport, UnlearnedModel
from .settings import UCE, UnlearnSettings

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
    ``W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1``."""
    fixed = retain_weight * products.preserved + RIDGE * products.identity
    return torch.linalg.solve(products.edited + fixed, products.mapped + fixed)


def edited_weights(base: ModelHandle, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``text_projections`` after a change by these matrices, by name."""
    weights = dict(base.named_parameters())
    return {
        name: (matrices[text_input] @ weights[name].detach().T.cpu().double()).T
        for name, text_input in base.text_projections().items()
    }


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


class ClosedForm:
    """A UCE run: one immediate edit, without step reports. ``base`` is never changed.

    Raises:
        ValueError: the model has no weights that read the prompt.
    """

    plan, whole = Plan(), True

    @torch.no_grad()
    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.alarms: list[Alarm] = []  # one edit cannot go wrong
        self.model = base.trainable_copy(list(edited_names(base)))
        weights = dict(self.model.named_parameters())
        edited = edits(base, sets.pairs, settings.retain_weight, settings.uce_tokens, progress)
        for name, weight in edited.items():
            weights[name].requires_grad_(False).copy_(weight)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    def result(self) -> UnlearnedModel:
        return UnlearnedModel(self.model, self.base, self.sets.pairs, self.settings, ())
