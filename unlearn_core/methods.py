"""A run by its settings' method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from .batches import TrainingSets, empty_prompt
from .closed_form import edited_names, edits
from .models.protocol import ModelHandle
from .objectives import ERASE
from .parameters import parameter_names
from .settings import UCE, UnlearnSettings
from .unlearn import StepReport, UnlearnedModel, Unlearning


class Run(Protocol):
    """Iterate it for a report after each step; ask for the result at any time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StepReport]: ...

    def result(self) -> UnlearnedModel: ...


class ClosedForm:
    """UCE, an edit that is made at once: no step is reported.

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
        model = self.base.trainable_copy(self.names)
        weights = dict(model.named_parameters())
        edited = edits(self.base, self.sets.pairs, self.settings.retain_weight)
        for name, weight in edited.items():
            weights[name].requires_grad_(False).copy_(weight)
        return UnlearnedModel(model, self.base, self.sets.pairs, self.settings, ())


def check(base: ModelHandle, settings: UnlearnSettings) -> None:
    """Refuse what could not begin, before pictures are drawn for it.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of.
    """
    if settings.method == UCE:
        edited_names(base)
        return
    parameter_names(base, settings.scope)
    if settings.objective == ERASE:
        empty_prompt(base)


def begin(base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> Run:
    """A run that has not made its first step.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of.
    """
    kind = ClosedForm if settings.method == UCE else Unlearning
    return kind(base, sets, settings)
