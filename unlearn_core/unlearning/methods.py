"""The two kinds of unlearning behind one interface: training steps and a closed-form edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..dataset.looks import check_look, twins_of
from ..dataset.own_pictures import OwnPictures, captioned, check_retained
from ..dataset.rows import TrainingSets
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import Progress
from ..models.layers import LOW_RANK
from ..models.protocol import ModelHandle
from ..prompts.concept import LOOK
from ..prompts.pairs import PromptPairs
from .alarms import Alarm
from .batches import empty_prompt
from .closed_form import ClosedForm
from .loop import Unlearning
from .objectives import REMOVE_LOOK, TWIN_OBJECTIVES, WORDLESS_OBJECTIVES
from .plan import Plan
from .recipes import LOOKS
from .results import StepReport, UnlearnedModel
from .scopes import parameter_names
from .settings import EDITS, UnlearnSettings
from .uce import edited_names

CLASS_FAMILIES = ("class-conditional", "dit")  # their prompts must name a class


class Run(Protocol):
    """Iterate over it to get a report after each step; call ``result`` at any time.

    An alarm with ``back_to`` undoes the steps after this one; their numbers follow again.
    """

    @property
    def alarms(self) -> list[Alarm]:
        """What has gone wrong so far."""
        ...

    plan: Plan
    whole: bool
    """Whether ``result`` is the model after the last finished step. False if a step failed while it
    changed the weights."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StepReport]: ...

    def end_early(self) -> None:
        """Check the state before it becomes the result without the remaining steps. In place of a
        damaged one, the last good state becomes the result.

        Raises:
            WentWrongError: there is none with a finished step.
        """
        ...

    def result(self) -> UnlearnedModel: ...


class Method(Protocol):
    """The interface of a way to unlearn."""

    @property
    def needs_pictures(self) -> bool:
        """Whether it trains on pictures; otherwise the prompts are enough."""
        ...

    def steps(self, settings: UnlearnSettings) -> int:
        """The number of training steps."""
        ...

    def adds_layers(self, settings: UnlearnSettings) -> bool:
        """Whether the result consists of unchanged weights and additional low-rank layers."""
        ...

    def check(
        self,
        base: ModelHandle,
        pairs: PromptPairs,
        settings: UnlearnSettings,
        forget_pictures: OwnPictures | None,
        retain_pictures: OwnPictures | None,
    ) -> None:
        """Raise ValueError for a run that cannot succeed."""
        ...

    def begin(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None,
        plan: Plan | None,
        processes: Processes,
    ) -> Run:
        """Create a run, ready for its first step."""
        ...


class Steps:
    """Gradient steps on pictures of both sets, combined by one of the rules."""

    needs_pictures = True

    def steps(self, settings: UnlearnSettings) -> int:
        return settings.steps

    def adds_layers(self, settings: UnlearnSettings) -> bool:
        return settings.scope in LOW_RANK

    def check(
        self,
        base: ModelHandle,
        pairs: PromptPairs,
        settings: UnlearnSettings,
        forget_pictures: OwnPictures | None,
        retain_pictures: OwnPictures | None,
    ) -> None:
        parameter_names(base, settings.scope)
        empty_prompt(base, settings)
        if not pairs.concept.has_word:
            check_look(pairs, forget_pictures, retain_pictures)
            assert forget_pictures is not None
            assert retain_pictures is not None
            twins = twins_of(forget_pictures, retain_pictures)
            _check_needs_no_word(pairs, settings, has_twins=twins is not None)
            return
        if settings.objective == REMOVE_LOOK:
            raise ValueError(
                f"objective {REMOVE_LOOK!r} is for a concept of the kind {LOOK!r}, got "
                f"{pairs.concept.kind!r}; choose another objective, or change the kind"
            )
        if retain_pictures is not None:
            check_retained(retain_pictures, pairs)
        if forget_pictures is not None and forget_pictures.alone:
            pictured = {k for _, k in captioned(forget_pictures, pairs)}
            for k, part in enumerate(pairs.each):
                if k not in pictured:
                    raise ValueError(
                        f"forget_pictures.alone: no picture shows {part.concept.name!r}, so it "
                        "cannot be forgotten; add pictures of it, or switch 'alone' off"
                    )
        elif forget_pictures is not None:
            captioned(forget_pictures, pairs)

    def begin(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None,
        plan: Plan | None,
        processes: Processes,
    ) -> Run:
        return Unlearning(base, sets, settings, progress, plan, processes)


def _check_needs_no_word(pairs: PromptPairs, settings: UnlearnSettings, *, has_twins: bool) -> None:
    """Raises:
    ValueError: the settings compare prompts with and without a word, or need twins.
    """
    cure = f"no word names the look {pairs.concept.name!r}; choose the recipe {LOOKS!r}"
    if settings.objective not in WORDLESS_OBJECTIVES:
        raise ValueError(f"objective {settings.objective!r} replaces words, but {cure}")
    if settings.objective in TWIN_OBJECTIVES and not has_twins:
        raise ValueError(
            f"objective {settings.objective!r} needs twins: give each picture without the look the "
            f"file name of its twin with it, or choose the recipe {LOOKS!r}"
        )
    if settings.warm_start or settings.prompt_protection:
        raise ValueError(f"warm_start and prompt_protection edit words, but {cure}")


class Edit:
    """One closed-form edit of cross-attention, computed from the prompts alone."""

    needs_pictures = False

    def steps(self, settings: UnlearnSettings) -> int:
        return 0

    def adds_layers(self, settings: UnlearnSettings) -> bool:
        return False

    def check(
        self,
        base: ModelHandle,
        pairs: PromptPairs,
        settings: UnlearnSettings,
        forget_pictures: OwnPictures | None,
        retain_pictures: OwnPictures | None,
    ) -> None:
        edited_names(base)
        if not pairs.concept.has_word:
            raise ValueError(
                f"method {settings.method!r} edits words, and no word names the look "
                f"{pairs.concept.name!r}; choose the recipe {LOOKS!r}"
            )
        if forget_pictures is not None or retain_pictures is not None:
            raise ValueError(
                f"method {settings.method!r} uses only prompts, no pictures; unlink your own "
                "pictures or choose another method"
            )

    def begin(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None,
        plan: Plan | None,
        processes: Processes,
    ) -> Run:
        return ClosedForm(base, sets, settings, progress)


def method_of(settings: UnlearnSettings) -> Method:
    """The method that the settings choose."""
    return Edit() if settings.method in EDITS else Steps()


def check(
    base: ModelHandle,
    pairs: PromptPairs,
    settings: UnlearnSettings,
    forget_pictures: OwnPictures | None = None,
    retain_pictures: OwnPictures | None = None,
) -> None:
    """Refuse a run that cannot succeed, before pictures are drawn for it.

    Raises:
        ValueError: the model does not support the scope, objective, method or a prompt, or the
            user's own pictures leave a concept without any picture to learn from.
    """
    for part in pairs.each:
        for pair in (*part.train, *part.test):
            base.check_prompts([pair.forget, pair.retain])
    for own in (forget_pictures, retain_pictures):
        if own is not None:
            base.check_prompts(own.captions)
    method_of(settings).check(base, pairs, settings, forget_pictures, retain_pictures)


def begin(
    base: ModelHandle,
    sets: TrainingSets,
    settings: UnlearnSettings,
    progress: Progress | None = None,
    plan: Plan | None = None,
    processes: Processes = ALONE,
) -> Run:
    """Create a run, ready for its first step.

    Args:
        progress: shows the closed-form edit, if there is one, and is checked between the batches
            of a step.
        plan: how a step uses memory; None computes whole batches.
        processes: share the run; an edit is computed by each of them.

    Raises:
        ValueError: the model does not support the scope, objective or method.
    """
    return method_of(settings).begin(base, sets, settings, progress, plan, processes)
