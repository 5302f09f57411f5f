"""A run by its settings' method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from .batches import TrainingSets, empty_prompt
from .closed_form import OnPair, edited_names, edits
from .models.protocol import ModelHandle
from .parameters import parameter_names
from .settings import UCE, UnlearnSettings
from .unlearn import StepReport, UnlearnedModel, Unlearning


class Run(Protocol):
    """Iterate it for a report after each step; ask for the result at any time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StepReport]: ...

    def result(self) -> UnlearnedModel: ...


class ClosedForm:
    """UCE, an edit that is made at once: no step is reported. The model given is never changed.

    Raises:
        ValueError: a model without cross-attention.
    """

    @torch.no_grad()
    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        on_pair: OnPair | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.model = base.trainable_copy(edited_names(base))
        weights = dict(self.model.named_parameters())
        for name, weight in edits(base, sets.pairs, settings.retain_weight, on_pair).items():
            weights[name].requires_grad_(False).copy_(weight)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    def result(self) -> UnlearnedModel:
        return UnlearnedModel(self.model, self.base, self.sets.pairs, self.settings, ())


def check(base: ModelHandle, settings: UnlearnSettings) -> None:
    """Refuse what could not begin, before pictures are drawn for it.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of.
    """
    if settings.method == UCE:
        edited_names(base)
        return
    parameter_names(base, settings.scope)
    empty_prompt(base, settings)


def begin(
    base: ModelHandle,
    sets: TrainingSets,
    settings: UnlearnSettings,
    on_pair: OnPair | None = None,
) -> Run:
    """A run that has not made its first step.

    Args:
        on_pair: progress of the edit in closed form, where the run is one or begins from one.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of.
    """
    kind = ClosedForm if settings.method == UCE else Unlearning
    return kind(base, sets, settings, on_pair)
