"""The unlearning loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .batches import Batches, TrainingSets
from .closed_form import OnPair, warm_up
from .models.protocol import ModelHandle, OnStep
from .objectives import OBJECTIVES, RETAIN_OBJECTIVES, ForgetBatch
from .optimizer import RestrictedAdam
from .parameters import trainable
from .prompts import PromptPairs
from .restricted_gradient import RULES, gram
from .saliency import saliency_mask
from .schedules import SCHEDULES
from .settings import UnlearnSettings

Gradient = tuple[Tensor, ...]


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: 1 for the first.
        forget_loss: of the forget batch before the step, decreasing as the model forgets.
        retain_loss: of the retain batch before the step.
        cosine: of the two gradients, -1..1; negative is a conflict.
        conflict: whether the gradients were in conflict.
        grad_forget_norm, grad_retain_norm: Euclidean norms over the trained parameters.
        forget_change, retain_change: of the two losses by the step made, to first order; with
            ``retain_ema``, along the smoothed retain gradient.
        seconds: wall time of the step.
    """

    step: int
    forget_loss: float
    retain_loss: float
    cosine: float
    conflict: bool
    grad_forget_norm: float
    grad_retain_norm: float
    forget_change: float
    retain_change: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """By name; None for what is not finite, of which JSON has nothing."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class UnlearnedModel:
    """The result of a run, complete or cut short, with what is needed to judge and save it."""

    model: ModelHandle
    base: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    reports: tuple[StepReport, ...]

    def get_ram_usage(self) -> int:
        """Bytes of what it adds to its base; the name is ComfyUI's, whose cache of outputs asks."""
        return sum(tensor.nbytes for tensor in self.model.own_tensors())


class Unlearning:
    """One run over ``settings.steps`` steps; iterate it for a ``StepReport`` after each.

    ``result()`` may be asked for at any time, also after the iteration was broken off: it holds
    the model as the last finished step left it. The model given is never changed.
    """

    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        on_pair: OnPair | None = None,
        on_batch: OnStep | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.model, self.parameters = trainable(base, settings)
        if settings.warm_start and settings.saliency == 1:
            weight = settings.warm_start_weight
            warm_up(self.model, self.parameters, base, sets.pairs, weight, on_pair)
        self.optimizer = RestrictedAdam(self.parameters, weight_decay=settings.weight_decay)
        self.batches = Batches(base, sets, settings)
        self.on_batch: OnStep = on_batch or (lambda: None)
        self.mask: list[Tensor] = []
        self.smooth_retain: list[Tensor] = []
        self.reports: list[StepReport] = []

    def __len__(self) -> int:
        return self.settings.steps

    def __iter__(self) -> Iterator[StepReport]:
        for _ in range(len(self.reports), self.settings.steps):
            with torch.enable_grad():
                report = self._step()
            self.reports.append(report)
            yield report

    def result(self) -> UnlearnedModel:
        """What the steps so far have made; the model lives on, and a later step changes it."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        pairs, reports = self.sets.pairs, tuple(self.reports)
        return UnlearnedModel(self.model, self.base, pairs, self.settings, reports)

    def _step(self) -> StepReport:
        started = time.perf_counter()
        settings, step = self.settings, len(self.reports) + 1
        for parameter in self.parameters:
            parameter.requires_grad_(True)  # ``result`` may have frozen them in between

        if settings.saliency < 1 and not self.mask:
            self.mask = saliency_mask(
                self.model, self.parameters, self.batches, settings.saliency, self.on_batch
            )

        # Two gradients over one explicit list of parameters.
        batch = self.batches.forget()
        forget_loss, grad_forget = self._forget_gradient(batch)
        retain_loss, grad_retain = self._retain_gradient(batch)
        for gradients in (grad_forget, grad_retain):
            for gradient, kept in zip(gradients, self.mask, strict=False):
                gradient.mul_(kept)

        # Adam's step along the direction that is made of them.
        products = gram(grad_forget, grad_retain)
        change = self.optimizer.step(
            grad_forget,
            grad_retain,
            products,
            RULES[settings.method](products, settings.retain_weight),
            settings.learning_rate * SCHEDULES[settings.schedule](step, settings.steps),
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

    def _forget_gradient(self, batch: ForgetBatch) -> tuple[Tensor, Gradient]:
        losses = OBJECTIVES[self.settings.objective](
            self.model, self.base, batch, self.settings.strengths
        )
        loss = losses.mean()
        gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return loss.detach(), gradients

    def _retain_gradient(self, batch: ForgetBatch) -> tuple[Tensor, Gradient]:
        """Mean over the step's retain pictures, and the gradient smoothed over steps if asked."""
        objective = RETAIN_OBJECTIVES[self.settings.retain_objective]
        losses: list[Tensor] = []
        count, gradients = 0, None
        for part in self.batches.retain(batch):
            loss = objective(self.model, self.base, *part).sum()
            found = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            losses.append(loss.detach())  # read at the step's end: a device is not waited for
            count += len(part[0])
            self.on_batch()
            if gradients is None:
                gradients = found
            else:
                torch._foreach_add_(gradients, found)
        assert gradients is not None, "a step has a retain picture or more"
        torch._foreach_div_(gradients, count)
        return torch.stack(losses).sum() / count, self._smoothed(gradients)

    def _smoothed(self, gradients: Gradient) -> Gradient:
        """Exponential moving average over the steps, without bias towards its start at zero."""
        decay, step = self.settings.retain_ema, len(self.reports) + 1
        if decay == 0:
            return gradients
        if not self.smooth_retain:
            self.smooth_retain = [torch.zeros_like(g) for g in gradients]
        for smooth, gradient in zip(self.smooth_retain, gradients, strict=True):
            smooth.lerp_(gradient, 1 - decay)
        torch._foreach_copy_(gradients, self.smooth_retain)
        torch._foreach_div_(gradients, 1 - decay**step)
        return gradients
