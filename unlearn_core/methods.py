"""A run by its settings' method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .batches import TrainingSets, empty_prompt
from .closed_form import ClosedForm, edited_names
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
