"""The unlearning loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TypeVar

import torch
from torch import Tensor

from ..dataset.rows import TrainingSets
from ..foundation.interruption import Interruptible
from ..foundation.memory import free_unused, is_out_of_memory
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import Progress
from ..foundation.signals import deferred
from ..models.counted import Counted
from ..models.protocol import ModelHandle
from .alarms import Alarm
from .auto import resolved
from .batches import Batches, RetainBatch
from .breakdown import WentWrongError
from .objectives import PAUSES, RETAIN_OBJECTIVES, ForgetBatch
from .optimizer import SCHEDULES, RestrictedAdam
from .plan import Plan
from .results import StepReport, UnlearnedModel
from .rules import RULES, gram
from .saliency import forget_totals, saliency_mask
from .scopes import smaller_scope, trainable
from .settings import UnlearnSettings
from .snapshot import Snapshot, listed
from .text_weights import prepare
from .watch import Watch

Result = TypeVar("Result")
Gradient = tuple[Tensor, ...]
LossAndGradient = tuple[Tensor, Gradient]
"""A mean loss and its gradient; of some rows, the part that they contribute to both."""


class Unlearning:
    """One run of ``settings.steps`` steps; iterate over it to get a ``StepReport`` after each.

    Call ``result()`` at any time, also after an interrupted iteration: it returns the model after
    the last finished step. ``base`` is never changed.

    If the model is damaged, the run returns to the last good state and goes on with a lower
    learning rate (``watch``). The reports of the undone steps are removed, and the same step
    numbers follow again.

    ``snapshot`` and ``restore`` let another process continue the run.

    Several processes may share a run. All of them draw the same batches; each computes the losses
    and gradients of its own rows. After the sum over the processes, all take the same step.

    Attributes:
        whole: whether the weights are those after the last finished step; false if a step failed
            while it changed them.
        is_checked: whether all steps are finished and the final state has passed its check.
        next_batch: state of the generator of the batches after the last finished step.
        resumed_at: number of steps that were restored; None if none were.
    """

    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None = None,
        plan: Plan | None = None,
        processes: Processes = ALONE,
    ) -> None:
        settings = resolved(settings, base)
        self.plan, self.processes = plan or Plan(), processes
        self.base, self.sets, self.settings = base, sets, settings
        self.model, self.parameters = trainable(base, settings)
        protections = prepare(self.model, self.parameters, base, sets.pairs, settings, progress)
        matrices = {id(matrix): matrix for matrix in protections if matrix is not None}
        weights = [parameter.detach() for parameter in self.parameters]
        processes.copy_main_([*weights, *matrices.values()])  # devices may round differently
        self.progress = progress or Progress()
        self.interruptible = Interruptible(self.progress)
        self.trained, self.frozen = (Counted(m, self.progress) for m in (self.model, base))
        self.optimizer = RestrictedAdam(
            self.parameters, weight_decay=settings.weight_decay, protections=protections
        )
        self.batches = Batches(base, sets, settings)
        self.mask: list[Tensor] = []
        self.smooth_retain: list[Tensor] = []
        self.reports: list[StepReport] = []
        self.resumed_at: int | None = None
        self.whole, self.is_checked = True, False
        self.next_batch = self.batches.generator.get_state()
        self.watch = Watch(
            self.model, base, self.parameters, self.batches, self.progress, processes
        )

    def __len__(self) -> int:
        return self.settings.steps

    def __iter__(self) -> Iterator[StepReport]:
        while not self.is_finished:
            takes_step = len(self.reports) < self.settings.steps
            try:
                if takes_step:
                    with torch.enable_grad():
                        report = self._step()
                    self.reports.append(report)
                    self.next_batch, self.whole = self.batches.generator.get_state(), True
                if len(self.reports) == self.settings.steps:
                    self.watch.after_last_step()
                    self.is_checked = True
            except WentWrongError as error:
                self._go_back(error)
            else:
                if takes_step:
                    yield self.reports[-1]

    @property
    def alarms(self) -> list[Alarm]:
        return self.watch.alarms

    @property
    def is_finished(self) -> bool:
        return self.is_checked or self.watch.gave_up

    def snapshot(self) -> Snapshot:
        """The state after the last finished step; valid if ``whole``. A finished run needs only its
        weights."""
        tensors, watch = listed("weights", self.parameters), self.watch.snapshot()
        if not self.is_finished:
            tensors |= listed("moments", self.optimizer.moments)
            tensors |= listed("mask", self.mask) | listed("smooth_retain", self.smooth_retain)
            tensors |= {"next_batch": self.next_batch, **watch.tensors}
        values = {
            **watch.values,
            "reports": [asdict(report) for report in self.reports],
            "plan": asdict(self.plan),
            "optimizer_steps": self.optimizer.steps,
            "is_finished": self.is_finished,
        }
        return Snapshot(tensors, values)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of a run with the same inputs, bit for bit on the CPU.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """
        reports = snapshot.reports(self.settings.steps)
        plan, optimizer_steps = snapshot.part("plan", Plan), snapshot.count("optimizer_steps")
        weights = snapshot.list_of("weights", self.parameters)
        moments = snapshot.list_of("moments", self.optimizer.moments)
        mask = snapshot.list_of("mask", self.parameters, torch.bool)
        smooth = snapshot.list_of("smooth_retain", self.parameters)
        is_finished = snapshot.values.get("is_finished") is True
        if not weights or not reports or not (moments or is_finished):
            raise ValueError("it is incomplete")
        next_batch = snapshot.generator("next_batch") if moments else self.next_batch
        self.watch.restore(snapshot)
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, weights, strict=True):
                parameter.copy_(weight)
        if moments:
            self.optimizer.restore(moments, optimizer_steps)
        self.mask = [part.to(self.base.device, copy=True) for part in mask]
        self.smooth_retain = [part.to(self.base.device, copy=True) for part in smooth]
        self.batches.generator.set_state(next_batch)
        self.plan, self.reports, self.next_batch = plan, reports, next_batch
        self.resumed_at, self.is_checked = len(reports), is_finished

    def result(self) -> UnlearnedModel:
        """The model after the steps so far, if ``whole``; it is not a copy, so later steps change
        it."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        pairs, reports, alarms = self.sets.pairs, tuple(self.reports), tuple(self.alarms)
        return UnlearnedModel(
            self.model,
            self.base,
            pairs,
            self.settings,
            reports,
            alarms=alarms,
            resumed_at=self.resumed_at,
        )

    def end_early(self) -> None:
        if not self.reports or self.is_finished:
            return
        try:
            self.watch.at_end(len(self.reports))
        except WentWrongError as error:
            self._go_back(error, ends=True)

    def _go_back(self, error: WentWrongError, *, ends: bool = False) -> None:
        step = len(self.reports) if ends else min(len(self.reports) + 1, self.settings.steps)
        good = self.watch.go_back(step, error, ends=ends)
        self.batches.generator.set_state(good.generator)
        self.next_batch, self.whole = good.generator, True
        self.optimizer.reset()
        self.smooth_retain.clear()
        del self.reports[good.step :]
        if (self.watch.gave_up or ends) and not self.reports:
            raise type(error)(f"training broke down: {self.alarms[-1].message}")

    def _step(self) -> StepReport:
        started = time.perf_counter()
        settings, step = self.settings, len(self.reports) + 1
        for parameter in self.parameters:
            parameter.requires_grad_(True)  # ``result`` may have frozen them since the last step

        if settings.saliency < 1 and not self.mask:
            totals = self._within_memory(step, self._forget_totals)
            self.processes.sum_(totals)
            self.mask = saliency_mask(totals, settings.saliency)
        generator = self.batches.generator.get_state()  # after the mask, which is computed once

        # Two gradients over one explicit list of parameters.
        own = self._within_memory(step, self._losses_and_gradients)
        (forget_loss, grad_forget), (retain_loss, grad_retain) = own
        self.processes.sum_([forget_loss, *grad_forget])
        self.processes.sum_([retain_loss, *grad_retain])
        if settings.objective in PAUSES:
            pause = PAUSES[settings.objective](forget_loss, settings.strengths)
            for gradient in grad_forget:
                gradient.masked_fill_(pause, 0)
        self.whole = settings.retain_ema == 0
        grad_retain = self._smoothed(grad_retain)
        for gradients in (grad_forget, grad_retain):
            for gradient, mask in zip(gradients, self.mask, strict=False):
                gradient.mul_(mask)

        # Adam's step along their combined direction.
        products = gram(grad_forget, grad_retain)
        self.watch.before_update(step - 1, retain_loss.item(), generator)
        with deferred():
            self.whole = False
            change = self.optimizer.step(
                grad_forget,
                grad_retain,
                products,
                RULES[settings.method](products, self.watch.weight(retain_loss.item())),
                settings.learning_rate
                * self.watch.rate_factor
                * SCHEDULES[settings.schedule](step, settings.steps),
                restrict=settings.restrict_step,
            )

        return StepReport(
            step=step,
            forget_loss=forget_loss.item(),
            retain_loss=retain_loss.item(),
            cosine=products.cosine,
            conflict=products.conflict,
            grad_forget_norm=products.forget_forget**0.5,
            grad_retain_norm=products.retain_retain**0.5,
            forget_change=change.forget,
            retain_change=change.retain,
            seconds=time.perf_counter() - started,
        )

    def _within_memory(self, step: int, work: Callable[[], Result]) -> Result:
        """The result of some work on this process's rows. If memory runs out, the same batch is
        tried once more, in smaller parts."""
        before = self.batches.generator.get_state()
        rows = self.processes.share(self.settings.batch_size)
        with self.processes.together(self.progress):
            while True:
                try:
                    with self.interruptible.within():
                        return work()
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = str(error).partition("\n")[0]
                # Only here, where nothing refers to the tensors of the failed attempt any more.
                smaller = smaller_scope(self.base, self.settings)
                self.plan = self.plan.after_failure(step, rows.stop - rows.start, reason, smaller)
                free_unused(self.base.device)
                self.batches.generator.set_state(before)

    def _forget_totals(self) -> list[Tensor]:
        return forget_totals(
            self.trained, self.parameters, self.batches, self.plan, self.progress, self.processes
        )

    def _losses_and_gradients(self) -> tuple[LossAndGradient, LossAndGradient]:
        """Of the forget and the retain rows of this process."""
        batch = self.batches.forget()
        return self._forget_gradient(batch), self._retain_gradient(batch)

    def _forget_gradient(self, batch: ForgetBatch) -> LossAndGradient:
        objective, strengths = self.settings.forget_loss, self.settings.strengths
        own = batch[self.processes.share(len(batch))]
        losses = (
            objective(self.trained, self.frozen, own[rows], strengths)
            for rows in self.plan.parts(len(own))
        )
        return self._gradient(losses, len(batch))

    def _retain_gradient(self, batch: ForgetBatch) -> LossAndGradient:
        objective = RETAIN_OBJECTIVES[self.settings.retain_objective]
        losses = (
            objective(self.trained, self.frozen, x[rows], conditioning[rows], noise[rows], t[rows])
            for x, conditioning, noise, t in map(self._own, self.batches.retain(batch))
            for rows in self.plan.parts(len(x))
        )
        return self._gradient(losses, self.batches.retain_rows)

    def _own(self, part: RetainBatch) -> RetainBatch:
        x, conditioning, noise, t = part
        rows = self.processes.share(len(x))
        return x[rows], conditioning[rows], noise[rows], t[rows]

    def _gradient(self, parts: Iterable[Tensor], count: int) -> LossAndGradient:
        """
        Args:
            parts: computes the losses of one part of the rows after another, so that only one needs
                memory.
            count: the number of rows of all processes, over which the mean is taken.
        """
        total = torch.zeros((), device=self.parameters[0].device)
        try:
            for losses in parts:
                loss = losses.sum() / count
                loss.backward(inputs=self.parameters)  # adds to ``.grad``: one set for all parts
                total += loss.detach()  # read after the step: reading would wait for the device
                self.progress.check()
            gradients = tuple(
                torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters
            )
        finally:
            for parameter in self.parameters:
                parameter.grad = None
        return total, gradients

    def _smoothed(self, gradients: Gradient) -> Gradient:
        """Exponential moving average over the steps (``retain_ema``), corrected for its start at
        zero."""
        decay, step = self.settings.retain_ema, self.optimizer.steps + 1
        if decay == 0:
            return gradients
        if not self.smooth_retain:
            self.smooth_retain = [torch.zeros_like(g) for g in gradients]
        for smooth, gradient in zip(self.smooth_retain, gradients, strict=True):
            smooth.lerp_(gradient, 1 - decay)
        torch._foreach_copy_(gradients, self.smooth_retain)
        torch._foreach_div_(gradients, 1 - decay**step)
        return gradients
