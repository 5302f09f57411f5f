"""Unified Concept Editing (Gandikota et al. 2024): cross-attention solved for in closed form.

A baseline that takes no steps and looks at no picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .batches import TrainingSets
from .models.protocol import ModelHandle
from .settings import UCE, UnlearnSettings
from .unlearn import StepReport, UnlearnedModel

RIDGE = 0.5  # how much the weights want to stay as they are, as in the authors' code
KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


class ClosedForm:
    """The interface of ``Unlearning`` around an edit that is made at once: no step is reported.

    Raises:
        ValueError: a model without cross-attention.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.names = edited_names(base)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    @torch.no_grad()
    def result(self) -> UnlearnedModel:
        """The edited model; the one given is never changed."""
        moved, wanted, kept = _tokens(self.sets)
        model = self.base.trainable_copy(self.names)
        weights = dict(model.named_parameters())
        ridge = RIDGE * torch.eye(moved.shape[1])
        keeping = self.settings.retain_weight * kept.T @ kept + ridge
        inputs = moved.T @ moved + keeping  # [D, D]
        outputs = moved.T @ wanted + keeping
        # W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1
        change = torch.linalg.solve(inputs, outputs)
        for name in self.names:
            weight = weights[name].requires_grad_(False)
            weight.copy_((change @ weight.T.cpu().double()).T)
        return UnlearnedModel(model, self.base, self.sets.pairs, self.settings, ())


def edited_names(model: ModelHandle) -> list[str]:
    """The keys' and values' weights of every cross-attention.

    Raises:
        ValueError: there is none.
    """
    names = [name for name, _ in model.named_parameters() if name.endswith(KEYS_AND_VALUES)]
    if not names:
        raise ValueError(
            f"method {UCE!r} edits cross-attention, which {model.info.name!r} has none of: "
            "choose another"
        )
    return names


def _tokens(sets: TrainingSets) -> tuple[Tensor, Tensor, Tensor]:
    """Token embeddings to edit, what each should act like, and those to keep, [N, D] each.

    CLIP looks backward only: a pair's embeddings are equal up to the concept's word, and from there
    on each position of the one should act like the same position of the other.
    """
    forget = torch.cat([part.forget.conditioning.values for part in sets.paired]).double()
    retain = torch.cat([part.retain.conditioning.values for part in sets.paired]).double()
    differs = (forget - retain).abs().amax(-1) > 1e-4  # [N, L]
    from_word = differs.cumsum(1) > 0
    return forget[from_word], retain[from_word], retain.flatten(0, 1)
