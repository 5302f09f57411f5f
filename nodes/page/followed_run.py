"""The unlearning of a node: told to the page as it goes on, ended early where the page asks so, and
given again where its state was kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from comfy.model_management import InterruptProcessingException
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...unlearn_core.dataset.drawing import LatentCache
from ...unlearn_core.dataset.own_pictures import OwnPictures
from ...unlearn_core.dataset.previews import PreviewPrompts
from ...unlearn_core.dataset.rows import TrainingSets
from ...unlearn_core.dataset.settings import GenerationSettings
from ...unlearn_core.dataset.training_sets import make_training_sets
from ...unlearn_core.models.protocol import ModelHandle
from ...unlearn_core.prompts.pairs import PromptPairs
from ...unlearn_core.reporting.grids import before_after, picture_strip
from ...unlearn_core.saving.run_state import run_identity
from ...unlearn_core.unlearning.methods import Run, begin
from ...unlearn_core.unlearning.results import UnlearnedModel
from ...unlearn_core.unlearning.settings import UCE, UnlearnSettings
from ..host.folders import cache_folder
from ..host.progress import Phases, obey_cancel
from .runs import CANCELLED, FAILED, FINISHED, KEPT, LAST, RUNS, LiveRun

LOOK, IMAGES, EDIT, UNLEARNING = "first look", "making images", "first edit", "unlearning"


@dataclass
class LiveJob:
    """What the node was given, and the pictures that the person follows it by."""

    model: ModelHandle
    prompts: PromptPairs
    settings: UnlearnSettings
    drawing: GenerationSettings
    preview_every: int
    keep_step: int
    forget_pictures: OwnPictures | None
    retain_pictures: OwnPictures | None
    before: Tensor | None = field(default=None, init=False)
    drawn: dict[int, Tensor] = field(default_factory=dict, init=False)  # by step

    def __post_init__(self) -> None:
        self.previews = PreviewPrompts.of(self.prompts, self.drawing)

    def run_or_return(self, node: str, workflow: str | None) -> tuple[LiveRun, UnlearnedModel]:
        """The result, and the run as the page has followed it: a new one, or the node's last one
        where that has kept the state that is wanted."""
        identity = self._identity()
        last = RUNS.get((workflow, node))
        wanted = self.last_step
        if last is not None and last.identity == identity and last.has_state(wanted):
            last.client = PromptServer.instance.client_id  # another tab may ask now
            return last, self._state(last, wanted)
        steps = 0 if self.settings.method == UCE else self.settings.steps
        looks = self.previews
        run = LiveRun(
            node,
            workflow,
            identity,
            steps,
            looks.prompts,
            looks.forget_count,
            PromptServer.instance.client_id,
        )
        run.begin()
        try:
            return run, self._unlearn(run)
        except InterruptProcessingException:
            run.end(CANCELLED, f"Cancelled after step {len(run.steps)} of {run.total}.")
            raise
        except BaseException as error:
            run.end(FAILED, str(error))
            raise

    def comparison(self, unlearned: UnlearnedModel) -> Image.Image:
        """The previews' prompts before and after."""
        if self.before is None:
            self.before = self.previews.draw(self.model, obey_cancel)
        step = len(unlearned.reports)
        if step not in self.drawn:
            self.drawn[step] = self.previews.draw(unlearned.model, obey_cancel)
        return before_after(self.previews.prompts, self.before, self.drawn[step])

    def _unlearn(self, run: LiveRun) -> UnlearnedModel:
        bar = Phases(self._costs(), run.progress)
        self.before = self.previews.draw(self.model, obey_cancel, bar.of(LOOK))
        run.preview_before(picture_strip(self.before))
        sets = TrainingSets(self.prompts, (), ())
        if self.settings.method != UCE:  # which looks at words alone
            sets = make_training_sets(
                self.model,
                self.prompts,
                self.drawing,
                forget_pictures=self.forget_pictures,
                retain_pictures=self.retain_pictures,
                cache=LatentCache(cache_folder()),  # so that Cancel loses none of the pictures
                on_picture=bar.of(IMAGES),
                on_step=obey_cancel,
            )
        training = begin(self.model, sets, self.settings, bar.of(EDIT), obey_cancel)
        try:
            self._train(training, run, bar)
        except InterruptProcessingException:
            run.keep(training.result())  # so that Cancel loses none of the steps either
            raise
        unlearned = training.result()
        run.keep(unlearned)
        if run.asked is not None and run.asked != LAST:
            return self._state(run, run.asked)
        _end(run, len(run.steps))
        return unlearned

    def _state(self, run: LiveRun, step: int) -> UnlearnedModel:
        unlearned = run.state_at(step, self.model, self.prompts, self.settings)
        _end(run, step)
        return unlearned

    def _train(self, training: Run, run: LiveRun, bar: Phases) -> None:
        for report in training:
            run.step(report)
            bar.update(UNLEARNING, report.step, self.last_step)
            if self.preview_every and report.step % self.preview_every == 0:
                self._look(training, run)
            if run.asked is not None or report.step == self.keep_step:
                break
        if len(run.steps) not in run.previews:
            self._look(training, run)

    def _look(self, training: Run, run: LiveRun) -> None:
        unlearned = training.result()
        drawn = self.previews.draw(unlearned.model, obey_cancel)
        self.drawn = {len(run.steps): drawn}  # only the last: they are large
        run.preview(len(run.steps), picture_strip(drawn))
        run.keep(unlearned)

    @property
    def last_step(self) -> int:
        return self.keep_step or self.settings.steps

    def _identity(self) -> str:
        """Equal for two runs that come to the same, and show the same."""
        made = run_identity(
            self.model,
            self.prompts,
            self.settings,
            self.drawing,
            self.forget_pictures,
            self.retain_pictures,
        )
        content = json.dumps([made, self.previews.prompts])
        return hashlib.sha256(content.encode()).hexdigest()

    def _costs(self) -> dict[str, float]:
        """Roughly how often each phase runs the denoiser on one picture: a guided denoising step
        runs it twice, a training step costs three times as much because it goes back too, and the
        edit reads a pair of prompts in less time than that."""
        pairs = sum(len(part.train) for part in self.prompts.each)
        picture = self.drawing.steps * 2
        look = len(self.previews.prompts) * picture
        if self.settings.method == UCE:
            return {LOOK: look, EDIT: pairs}
        retained = self.settings.batch_size * self.settings.retain_batch_factor or pairs
        training = self.last_step * (self.settings.batch_size + retained) * 3
        looks = self.last_step // self.preview_every if self.preview_every else 1
        return {
            LOOK: look,
            IMAGES: 2 * pairs * picture,
            EDIT: pairs,
            UNLEARNING: training + looks * look,
        }


def _end(run: LiveRun, step: int) -> None:
    """With the state of this step. Only an earlier one than the last is a choice, which the page
    notes in the workflow."""
    if step < run.total:
        run.end(KEPT, f"Kept as it was after step {step} of {run.total}.", step)
    else:
        run.end(FINISHED, "", step)
