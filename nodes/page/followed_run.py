"""A node's unlearning run. The page follows it and can end it early. If the requested state is
saved already, it is returned without a new run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...unlearn_core.dataset.drawing import LatentCache
from ...unlearn_core.dataset.previews import PreviewPrompts
from ...unlearn_core.foundation.cost import JUDGING
from ...unlearn_core.foundation.progress import (
    ESTIMATING,
    FIRST_EDIT,
    MAKING_IMAGES,
    UNLEARNING,
)
from ...unlearn_core.job.engine import Observer, Task, unlearn
from ...unlearn_core.models.protocol import ModelHandle
from ...unlearn_core.reporting.grids import before_after, labelled_row, picture_strip
from ...unlearn_core.saving.resume import stored_steps
from ...unlearn_core.unlearning.alarms import ENDED, Alarm
from ...unlearn_core.unlearning.methods import Run, method_of
from ...unlearn_core.unlearning.plan import Plan
from ...unlearn_core.unlearning.results import StepReport, UnlearnedModel
from ...unlearn_core.unlearning.settings import UnlearnSettings
from ..host.folders import cache_folder
from ..host.memory import ALL, free_bytes, load
from ..host.progress import NodeProgress
from ..native.handle import NativeHandle
from .runs import CANCELLED, FAILED, FINISHED, KEPT, LAST, RUNS, LiveRun
from .stored_runs import OTHER_INPUTS, StoredRun, keep_until_saved, stored_file

FIRST_LOOK = "first look"
BEFORE = "before"  # in ``LiveRun.drawn``
STRENGTHS = (0.0, 0.5, 1.0, 1.5)  # of the strip of pictures


class _PageProgress(NodeProgress):
    """A node's progress, which is also sent to the page."""

    def __init__(self, costs: Mapping[str, float], run: LiveRun) -> None:
        super().__init__(costs)
        self.run = run

    def show(self) -> None:
        super().show()
        self.run.progress(self.name, self.done, self.total, self.seconds_left())

    def announce(self, sentence: str) -> None:
        super().announce(sentence)
        self.run.add_note(sentence)


@dataclass
class FollowedRun(Observer):
    """The observer of a node's run, which draws the previews."""

    task: Task
    chosen: UnlearnSettings  # by the user; ``task`` has those with automatic values
    preview_every: int
    keep_step: int

    def __post_init__(self) -> None:
        if not self.task.model.can_decode:
            self.preview_every = 0
        self.previews = PreviewPrompts.of(self.task.pairs, self.task.drawing)
        self._use(self.task)

    def _use(self, task: Task) -> None:
        self.task, self.steps = task, method_of(task.settings).steps(task.settings)
        self.last_step = min(self.keep_step or self.steps, self.steps)

    def run_or_return(self, node: str, workflow: str | None) -> tuple[LiveRun, UnlearnedModel]:
        """The run and its result: a new run, or the node's last one if the requested state is
        saved there."""
        last = RUNS.get((workflow, node))
        self._use_scope_of(last)
        task_identity = self.task.identity()
        identity = self._identity(task_identity)
        same = last is not None and last.identity == identity and not last.restart
        if last is not None and same and last.has_state(self.last_step):
            last.client = PromptServer.instance.client_id  # another tab may have queued this
            self.live = last
            return last, self._unsaved(self._state(last, self.last_step))
        self.live = LiveRun(
            node,
            workflow,
            identity,
            self.steps,
            self.previews.prompts,
            self.previews.forget_count,
            PromptServer.instance.client_id,
            self._automatic(),
        )
        self.progress = _PageProgress(self._costs(), self.live)
        self.stored = StoredRun((workflow, node), task_identity, self.progress)
        self.live.state_file = self.stored.file
        ended = last if last is not None and last.state in (FINISHED, KEPT) else None
        if ended is not None and ended.state_file == self.stored.file:
            self.stored.remove()  # other previews are requested, or another step
        self.live.begin(continues=self.stored.file.exists())
        try:
            unlearned = self._unlearn()
        except InterruptProcessingException:
            done, total = len(self.live.steps), self.live.total
            self._end_stopped(CANCELLED, f"Cancelled after step {done} of {total}.")
            raise
        except BaseException as error:
            self._end_stopped(FAILED, str(error))
            raise
        return self.live, self._unsaved(unlearned)

    def _unsaved(self, unlearned: UnlearnedModel) -> UnlearnedModel:
        if self.live.state_file is not None:
            keep_until_saved(self.live.state_file, unlearned)
        return unlearned

    def _use_scope_of(self, last: LiveRun | None) -> None:
        """Use the scope of an earlier run with the same inputs, however much memory there is now.

        Args:
            last: the last run of the node, which a stopped run on disk need not be.
        """
        for task in filter(None, (self.task, self.task.smaller)):
            identity = task.identity()
            is_last = last is not None and last.identity == self._identity(identity)
            if is_last or stored_file(identity) is not None:
                self._use(task)
                return

    def _end_stopped(self, state: str, note: str) -> None:
        if self.live.restart:
            self.stored.remove()
        steps = stored_steps(self.stored.file)
        self.live.end(state, note, stored=None if steps is None else len(steps))
        if steps is not None:
            logging.warning(
                "Unlearn: step %d is stored. Queue again to continue there.", len(steps)
            )

    def comparison(self, unlearned: UnlearnedModel) -> Image.Image:
        """Pictures of the preview prompts before and after."""
        before = self._drawn(BEFORE, self.previews, self.task.model)
        after = self._drawn(_after(unlearned), self.previews, unlearned.model)
        return before_after(self.previews.prompts, before, after)

    def strengths(self, unlearned: UnlearnedModel) -> Image.Image:
        """The first preview prompt, which contains the concept, at several strengths of the change.
        Only for a MODEL of ComfyUI."""
        assert isinstance(unlearned.model, NativeHandle)
        before = self._drawn(BEFORE, self.previews, self.task.model)
        after = self._drawn(_after(unlearned), self.previews, unlearned.model)
        first = replace(self.previews, prompts=self.previews.prompts[:1])
        pictures = [
            before[:1]
            if strength == 0
            else after[:1]
            if strength == 1
            else self._drawn(
                f"{_after(unlearned)}, strength {strength:g}",
                first,
                unlearned.model.at_strength(strength),
            )
            for strength in STRENGTHS
        ]
        labels = [f"strength {strength:g}" for strength in STRENGTHS]
        return labelled_row(labels, torch.cat(pictures))

    def _drawn(self, name: str, previews: PreviewPrompts, model: ModelHandle) -> Tensor:
        """Pictures that were drawn before, or new ones."""
        drawn = self.live.drawn
        if name not in drawn:
            drawn[name] = previews.draw(model, NodeProgress({FIRST_LOOK: 1}).silent())
        return drawn[name]

    def before_steps(self, run: Run, resumed_at: int) -> None:
        self.live.begin_steps(resumed_at, run.result(), "" if resumed_at else self.stored.note)
        if resumed_at:
            logging.info("Unlearn continues after step %d of %d.", resumed_at, self.steps)
        elif self.stored.note == OTHER_INPUTS:
            logging.info("Unlearn begins anew: the inputs are not those of the stopped run.")

    def scope_changed(self, task: Task) -> None:
        self._use(task)
        identity, self.progress.costs = self._identity(task.identity()), self._costs()
        self.live.change_scope(identity, self.steps, self._automatic(), self.stored.file)

    def plan_changed(self, plan: Plan) -> None:
        self.live.plan(plan)

    def after_step(self, report: StepReport) -> None:
        self.live.step(report)

    def after_alarm(self, alarm: Alarm) -> None:
        self.live.alarm(alarm)
        if alarm.back_to is not None:  # a later preview of the same step shows other pictures
            drawn = self.live.drawn
            self.live.drawn = {name: drawn[name] for name in drawn if name == BEFORE}

    def should_end(self, run: Run) -> bool:
        if self.preview_every and len(self.live.steps) % self.preview_every == 0:
            self._preview(run.result())
        return self.live.end_step is not None

    def after_run(self, run: Run) -> None:
        """Save the last state, also of a failed or cancelled run."""
        if run.whole:
            self.live.keep(run.result())

    def _unlearn(self) -> UnlearnedModel:
        live = self.live
        if self.task.model.can_decode:
            with self.progress.phase(FIRST_LOOK, len(self.previews.prompts)):
                live.drawn[BEFORE] = self.previews.draw(self.task.model, self.progress)
            live.preview_before(picture_strip(live.drawn[BEFORE]))
        unlearned = unlearn(
            self.task,
            self,
            last_step=self.last_step,
            resumption=self.stored,
            cache=LatentCache(cache_folder()),  # so that Cancel loses no pictures
            progress=self.progress,
            free=self._free_bytes,
        )
        if self.task.model.can_decode and len(live.steps) not in live.previews:
            self._preview(unlearned)
        if live.end_step is not None and live.end_step != LAST:
            return self._state(live, live.end_step)
        if any(alarm.kind in ENDED for alarm in unlearned.alarms):
            live.end(FINISHED, "", len(live.steps))  # nobody chose this step
        else:
            _end(live, len(live.steps))
        return unlearned

    def _free_bytes(self, device: torch.device) -> int | None:
        """Free memory once the text encoders and the autoencoder, which drew the first preview,
        have left the device."""
        load(self.task.model, ALL)
        return free_bytes(device)

    def _state(self, live: LiveRun, step: int) -> UnlearnedModel:
        unlearned = live.state_at(step, self.task.model, self.task.pairs, self.task.settings)
        _end(live, step)
        return unlearned

    def _preview(self, unlearned: UnlearnedModel) -> None:
        images = self.previews.draw(unlearned.model, self.progress.silent(JUDGING))
        step, drawn = len(self.live.steps), self.live.drawn
        # Only those of the last preview, because they are large.
        self.live.drawn = {BEFORE: drawn[BEFORE], _after(unlearned): images}
        self.live.preview(step, picture_strip(images))
        self.live.keep(unlearned)

    def _identity(self, task_identity: Mapping[str, Any]) -> str:
        """Equal for two runs with the same result and the same previews."""
        content = json.dumps([task_identity, self.previews.prompts])
        return hashlib.sha256(content.encode()).hexdigest()

    def _automatic(self) -> dict[str, Any]:
        """The settings that were chosen for the model, by name."""
        if not self.steps:
            return {}  # a closed-form edit uses none of them
        chosen, values = asdict(self.chosen), asdict(self.task.settings)
        return {name: value for name, value in values.items() if chosen[name] != value}

    def _costs(self) -> dict[str, float]:
        """Rough cost of each phase, in denoiser passes of one picture. A guided sampling step needs
        two, a picture in a training step three because of the backward pass, and the edit of a
        pair of prompts less than one."""
        task, settings = self.task, self.task.settings
        pairs = sum(len(part.train) for part in task.pairs.each)
        drawn = sum(min(len(part.train), settings.picture_pairs) for part in task.pairs.each)
        per_step = task.model.passes_per_step(task.drawing.guidance_scale)
        preview = len(self.previews.prompts) * task.drawing.steps * per_step
        costs: dict[str, float] = {FIRST_LOOK: preview} if task.model.can_decode else {}
        if self.steps:
            costs[ESTIMATING] = 3 * (1 + 2)  # a step with one picture and one with two
        if not task.pairs.concept.has_word:
            both = (task.forget_pictures, task.retain_pictures)
            costs[MAKING_IMAGES] = sum(len(own.images) for own in both if own)
        elif method_of(settings).needs_pictures:
            costs[MAKING_IMAGES] = 2 * drawn * settings.picture_steps * per_step
        costs[FIRST_EDIT] = pairs
        if self.steps:
            retain = settings.batch_size * settings.retain_batch_factor or drawn
            training = self.last_step * (settings.batch_size + retain) * 3
            previews = self.last_step // self.preview_every if self.preview_every else 1
            costs[UNLEARNING] = training + previews * preview
        return costs


def _after(unlearned: UnlearnedModel) -> str:
    """The name of a step's pictures in ``LiveRun.drawn``."""
    return f"step {len(unlearned.reports)}"


def _end(live: LiveRun, step: int) -> None:
    """End with the state of this step. If it is not the last step, the user chose it, and the page
    records it in the workflow."""
    if step < live.total:
        live.end(KEPT, f"Kept as it was after step {step} of {live.total}.", step)
    else:
        live.end(FINISHED, "", step)
