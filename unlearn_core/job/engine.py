"""One unlearning run, from the prompts to the result. The command line and the node share it.

An ``Observer`` receives each step and the final state, also of a failed or stopped run, so that no
finished step is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..dataset.drawing import LatentCache
from ..dataset.own_pictures import OwnPictures
from ..dataset.rows import TrainingSets
from ..dataset.settings import GenerationSettings
from ..dataset.training_sets import make_training_sets
from ..foundation.cost import peak_bytes
from ..foundation.memory import free_bytes, free_unused
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import UNLEARNING, Progress
from ..models.layers import AUTO
from ..models.protocol import ModelHandle
from ..models.text_to_image import TextToImageHandle
from ..prompts.pairs import PromptPairs, without_diversity
from ..saving.run_state import run_identity
from ..unlearning.alarms import Alarm
from ..unlearning.auto import resolved
from ..unlearning.fitting import TooLargeError, plan_for
from ..unlearning.known_words import unknown_words
from ..unlearning.methods import Run, begin, check, method_of
from ..unlearning.plan import Plan
from ..unlearning.results import StepReport, UnlearnedModel
from ..unlearning.scopes import smaller_scope
from ..unlearning.settings import UnlearnSettings
from .resumption import Resumption


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that determines the result of a run. ``"auto"`` in ``settings`` is replaced by the
    model's own value.

    Attributes:
        smaller: the same task with a smaller scope, for a device with little memory; None if the
            user has chosen the scope, or if there is no smaller one.
    """

    model: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    drawing: GenerationSettings
    forget_pictures: OwnPictures | None = None
    retain_pictures: OwnPictures | None = None
    smaller: Task | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        chosen, settings = self.settings, resolved(self.settings, self.model, self.drawing.steps)
        object.__setattr__(self, "settings", settings)
        if chosen.scope == AUTO and method_of(settings).steps(settings):
            scope = smaller_scope(self.model, settings)
            if scope is not None:
                smaller = replace(self, settings=replace(chosen, scope=scope))
                object.__setattr__(self, "smaller", smaller)

    def check(self) -> None:
        """Refuse a task that cannot succeed.

        Raises:
            ValueError: names the field.
        """
        check(self.model, self.pairs, self.settings, self.forget_pictures, self.retain_pictures)

    @property
    def training_pairs(self) -> PromptPairs:
        """The prompts for training: all, or the first pair repeated without ``diversified``."""
        return self.pairs if self.settings.diversified else without_diversity(self.pairs)

    def identity(self) -> dict[str, Any]:
        """Equal for two tasks with the same result; see ``run_identity``."""
        return run_identity(
            self.model,
            self.pairs,
            self.settings,
            self.drawing,
            self.forget_pictures,
            self.retain_pictures,
        )


class Observer:
    """Callbacks of a run. Those of this class do nothing; subclasses override them."""

    def scope_changed(self, task: Task) -> None:
        """Called before anything is drawn if the memory is too small for the scope of the task.

        Args:
            task: the one that is carried out, with a smaller scope.
        """

    def plan_changed(self, plan: Plan) -> None:
        """Called before the first step if the memory was estimated, and after a step that ran out
        of memory and was repeated with another plan."""

    def before_steps(self, run: Run, resumed_at: int) -> None:
        """Called before the first step.

        Args:
            resumed_at: number of steps that a stopped run has finished; the run continues after
                them, and ``run.result()`` has their reports and alarms. 0 for a new run.
        """

    def after_step(self, report: StepReport) -> None:
        """Called after each step, before the progress shows it."""

    def after_alarm(self, alarm: Alarm) -> None:
        """Called when something goes wrong. If ``alarm.back_to`` is set, the steps after it have
        been undone, and their numbers follow again."""

    def should_end(self, run: Run) -> bool:
        """Called after each step, once the progress shows it; True ends the run here."""
        return False

    def after_run(self, run: Run) -> None:
        """Called once after the last step, also if an error or Cancel ended the run:
        ``run.result()`` is the model after the last finished step, if ``run.whole``."""


def training_sets(
    task: Task,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> TrainingSets:
    """Draw both training sets; without pictures if the method needs none."""
    pairs, settings = task.training_pairs, task.settings
    if not method_of(settings).needs_pictures:
        return TrainingSets(pairs, (), ())
    return make_training_sets(
        task.model,
        pairs,
        replace(task.drawing, steps=settings.picture_steps),
        settings.picture_pairs,
        forget_pictures=task.forget_pictures,
        retain_pictures=task.retain_pictures,
        cache=cache,
        progress=progress,
        processes=processes,
    )


def unlearn(
    task: Task,
    observer: Observer,
    *,
    last_step: int | None = None,
    resumption: Resumption | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    free: Callable[[torch.device], int | None] = free_bytes,
) -> UnlearnedModel:
    """Draw both training sets, apply the closed-form edit if there is one, and train.

    Args:
        last_step: end the run when it first reaches this step; None for all steps.
        resumption: where the state of the run is stored; the run continues from one that is there.
        cache: stores drawn pictures, also those of a stopped run.
        progress: reports each phase; its ``check`` may raise to stop the run.
        processes: share the run; each of them calls this function and receives the result.
        free: the bytes of a device that nothing uses; None if unknown.

    Raises:
        ValueError: the task cannot succeed, the memory is too small, a gradient of the first
            step is not finite, or the stored state cannot be continued.
    """
    progress = progress or Progress()
    snapshot = None if resumption is None else resumption.read()  # before anything is drawn
    if snapshot is not None and last_step is not None and snapshot.step > last_step:
        snapshot = None  # a run cannot return to an earlier step
    start = progress.cost()
    plan = Plan()
    if method_of(task.settings).steps(task.settings):
        chosen, plan = _with_plan(task, snapshot is None, free, progress, processes)
        if chosen is not task:
            task = chosen
            if resumption is not None:
                resumption.use(task.identity())
            observer.scope_changed(task)
    unknown: list[Alarm] = []
    # Before the pictures are drawn, which may take an hour. A stored state has its alarms.
    if method_of(task.settings).needs_pictures and snapshot is None:
        unknown = unknown_words(task.model, task.training_pairs, progress)
        for alarm in unknown:
            observer.after_alarm(alarm)
    sets = training_sets(task, cache, progress, processes)
    run = begin(task.model, sets, task.settings, progress, plan, processes)
    run.alarms.extend(unknown)
    reported = len(unknown)
    steps = len(run) if last_step is None else min(last_step, len(run))
    resumed_at = 0
    if resumption is not None and snapshot is not None:
        resumption.continue_from(run, snapshot)
        resumed_at, reported = snapshot.step, len(run.alarms)
        plan, snapshot = run.plan, None  # its tensors are mapped from the file
    observer.before_steps(run, resumed_at)
    if str(plan):
        observer.plan_changed(plan)
    try:
        if steps:  # a closed-form edit has none
            with progress.phase(UNLEARNING, steps):
                if resumed_at:
                    progress.tick(resumed_at)
                _release_encoders(task.model)
                # The state of the last step may be stored before its check.
                for report in run if resumed_at < steps or steps == len(run) else ():
                    reported = _report_alarms(run, observer, reported)
                    if run.plan is not plan:
                        plan = run.plan
                        observer.plan_changed(plan)
                    observer.after_step(report)
                    if resumption is not None:
                        resumption.after_step(run)
                    progress.tick(
                        report.step - progress.done,  # negative after steps were undone
                        note=f"forget {report.forget_loss:.2g}, retain {report.retain_loss:.2g}, "
                        f"cosine {report.cosine:+.2f}",
                    )
                    if observer.should_end(run) or report.step == steps:
                        run.end_early()
                        break
                    _release_encoders(task.model)  # a preview has returned them
    finally:
        if resumption is not None:  # first: the others may fail, for example on a closed terminal
            resumption.after_run(run)
        if run.plan is not plan:  # the step that changed it failed all the same
            observer.plan_changed(run.plan)
        _report_alarms(run, observer, reported)
        observer.after_run(run)
    cost = replace(
        progress.cost(start),
        peak_bytes=peak_bytes(task.model.device),
        memory_plan=run.plan.as_json() if steps else None,
    )
    return replace(run.result(), pairs=task.pairs, cost=cost)


def _with_plan(
    task: Task,
    is_new: bool,
    free: Callable[[torch.device], int | None],
    progress: Progress,
    processes: Processes,
) -> tuple[Task, Plan]:
    """The task, or the same one with a smaller scope if only this fits; and its plan.

    Raises:
        TooLargeError: neither fits.
    """
    if not is_new or task.smaller is None:
        return task, _plan(task, free, progress, processes)
    plan = None
    with suppress(TooLargeError):
        plan = _plan(task, free, progress, processes)
    failures = torch.tensor(float(plan is None or not plan.fits))
    processes.sum_([failures])  # all of them train the same scope
    if plan is not None and not failures:
        return task, plan
    free_unused(task.model.device)
    plan = _plan(task.smaller, free, progress, processes)
    scopes = {"scope": task.smaller.settings.scope, "too_large": task.settings.scope}
    return task.smaller, replace(plan, **scopes)


def _plan(
    task: Task,
    free: Callable[[torch.device], int | None],
    progress: Progress,
    processes: Processes,
) -> Plan:
    rows = math.ceil(task.settings.batch_size / processes.count)  # of one process
    return plan_for(
        task.model,
        replace(task.settings, batch_size=rows),
        task.pairs.each[0].train[0].forget,
        free(task.model.device),
        progress,
        drawing=task.drawing,
        own_pictures=task.retain_pictures is not None and task.pairs.concept.has_word,
    )


def _release_encoders(model: ModelHandle) -> None:
    """Free the memory of networks that no step needs: all prompts and pictures are encoded."""
    if isinstance(model, TextToImageHandle):
        model.release_encoders()


def _report_alarms(run: Run, observer: Observer, reported: int) -> int:
    """Report the alarms after the first ``reported``; returns their number."""
    for alarm in run.alarms[reported:]:
        observer.after_alarm(alarm)
    return len(run.alarms)
