"""One unlearning run, from the prompts to the result: the same for the command line and the node.

An ``Observer`` sees the steps. It also receives the last good state of a run that failed or was
stopped, so that no finished step is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..dataset.drawing import LatentCache
from ..dataset.own_pictures import OwnPictures
from ..dataset.rows import TrainingSets
from ..dataset.settings import GenerationSettings
from ..dataset.training_sets import make_training_sets
from ..foundation.progress import UNLEARNING, Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs, without_diversity
from ..saving.run_state import run_identity
from ..unlearning.methods import Run, begin, check, method_of
from ..unlearning.results import StepReport, UnlearnedModel
from ..unlearning.settings import UnlearnSettings


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that decides the result of a run."""

    model: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    drawing: GenerationSettings
    forget_pictures: OwnPictures | None = None
    retain_pictures: OwnPictures | None = None

    def check(self) -> None:
        """Refuse a task that cannot succeed.

        Raises:
            ValueError: naming the field.
        """
        check(self.model, self.pairs, self.settings, self.forget_pictures, self.retain_pictures)

    @property
    def training_pairs(self) -> PromptPairs:
        """The prompts that the run learns from."""
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
    """Watches a run; does nothing by itself."""

    def stepped(self, report: StepReport) -> None:
        """Called after each step."""

    def ends(self, run: Run) -> bool:
        """Called next, once the progress shows the step. True ends the run here."""
        return False

    def ended(self, run: Run) -> None:
        """Called once after the last step, also when an error or Cancel ended the run:
        ``run.result()`` is the model after its last finished step."""


def unlearn(
    task: Task,
    observer: Observer,
    *,
    last_step: int | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> UnlearnedModel:
    """Draw the two sets, make the first edit, and take the steps.

    Args:
        last_step: the step to end after; None for the last one.
        cache: keeps the drawn pictures, also of a run that is stopped.
        progress: phase by phase; its ``check`` may raise to stop the run.

    Raises:
        ValueError: a task that cannot succeed, or a gradient that is not finite.
    """
    progress, pairs = progress or Progress(), task.training_pairs
    sets = TrainingSets(pairs, (), ())
    if method_of(task.settings).needs_pictures:
        sets = make_training_sets(
            task.model,
            pairs,
            task.drawing,
            forget_pictures=task.forget_pictures,
            retain_pictures=task.retain_pictures,
            cache=cache,
            progress=progress,
        )
    run = begin(task.model, sets, task.settings, progress)
    steps = len(run) if last_step is None else last_step
    try:
        if steps:  # an edit in closed form takes none
            with progress.phase(UNLEARNING, steps):
                for report in run:
                    observer.stepped(report)
                    progress.tick(
                        note=f"forget {report.forget_loss:.2g}, retain {report.retain_loss:.2g}, "
                        f"cosine {report.cosine:+.2f}"
                    )
                    if observer.ends(run) or report.step == steps:
                        break
    finally:
        observer.ended(run)
    return replace(run.result(), pairs=task.pairs)
