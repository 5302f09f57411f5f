"""A run by its settings' method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..dataset.own_pictures import OwnPictures, captioned, check_retained
from ..dataset.rows import TrainingSets
from ..models.protocol import ModelHandle, OnStep
from ..prompts.pairs import PromptPairs
from .batches import empty_prompt
from .loop import Unlearning
from .results import StepReport, UnlearnedModel
from .scopes import parameter_names
from .settings import UCE, UnlearnSettings
from .uce import ClosedForm, OnPair, edited_names

OF_CLASSES = ("class-conditional", "dit")  # families whose prompts name a class


class Run(Protocol):
    """Iterate it for a report after each step; ask for the result at any time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StepReport]: ...

    def result(self) -> UnlearnedModel: ...


def check(
    base: ModelHandle,
    pairs: PromptPairs,
    settings: UnlearnSettings,
    forget_pictures: OwnPictures | None = None,
    retain_pictures: OwnPictures | None = None,
) -> None:
    """Refuse what could not begin or end, before pictures are drawn for it.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of, a prompt that it
            cannot express, or pictures from which a concept would learn nothing.
    """
    if settings.method == UCE:
        edited_names(base)
        if forget_pictures is not None or retain_pictures is not None:
            raise ValueError(
                f"method: {UCE!r} looks at words alone; leave your own pictures out, or choose "
                "another method"
            )
        return
    parameter_names(base, settings.scope)
    empty_prompt(base, settings)
    if base.info.family in OF_CLASSES:  # others express any prompt
        for part in pairs.each:
            for pair in (*part.train, *part.test):
                base.encode_prompts([pair.forget, pair.retain])
    if retain_pictures is not None:
        check_retained(retain_pictures, pairs)
    if forget_pictures is not None:
        shown = {k for _, k in captioned(forget_pictures, pairs)}
        for k, part in enumerate(pairs.each):
            if forget_pictures.alone and k not in shown:
                raise ValueError(
                    f"forget_pictures.alone: no picture shows {part.concept.name!r}, of which "
                    "nothing would be learned then; add some, or switch it off"
                )


def begin(
    base: ModelHandle,
    sets: TrainingSets,
    settings: UnlearnSettings,
    on_pair: OnPair | None = None,
    on_batch: OnStep | None = None,
) -> Run:
    """A run that has not made its first step.

    Args:
        on_pair: progress of the edit in closed form, where the run is one or begins from one.
        on_batch: called after each batch of a step that looks at many; may raise to cancel.

    Raises:
        ValueError: a scope, objective or method that the model has nothing of.
    """
    if settings.method == UCE:
        return ClosedForm(base, sets, settings, on_pair)
    return Unlearning(base, sets, settings, on_pair, on_batch)
