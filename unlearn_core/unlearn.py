"""The unlearning loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .models.protocol import Conditioning, ModelHandle
from .objectives import OBJECTIVES, RETAIN_OBJECTIVES, ForgetBatch
from .parameters import trainable
from .prompts import PromptPairs
from .restricted_gradient import RULES, combine_, gram
from .settings import UnlearnSettings

if TYPE_CHECKING:
    from .dataset import TrainingSets

WARM_UP = 0.1  # share of the steps over which the learning rate grows from zero


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
        seconds: wall time of the step.
    """

    step: int
    forget_loss: float
    retain_loss: float
    cosine: float
    conflict: bool
    grad_forget_norm: float
    grad_retain_norm: float
    seconds: float


@dataclass(frozen=True, eq=False)
class UnlearnedModel:
    """The result of a run, complete or cut short, with what is needed to judge and save it."""

    model: ModelHandle
    base: ModelHandle
    pairs: PromptPairs
    settings: UnlearnSettings
    reports: tuple[StepReport, ...]


class Unlearning:
    """One run over ``settings.steps`` steps; iterate it for a ``StepReport`` after each.

    ``result()`` may be asked for at any time, also after the iteration was broken off: it holds
    the model as the last finished step left it. The model given is never changed.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.model, self.parameters = trainable(base, settings)
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.learning_rate)
        self.generator = torch.Generator().manual_seed(settings.seed)
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
        """What the steps so far have made."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        pairs, reports = self.sets.pairs, tuple(self.reports)
        return UnlearnedModel(self.model, self.base, pairs, self.settings, reports)

    def _step(self) -> StepReport:
        started = time.perf_counter()
        settings, step = self.settings, len(self.reports) + 1
        for parameter in self.parameters:
            parameter.requires_grad_(True)  # ``result`` may have frozen them in between

        # Two gradients over one explicit list of parameters.
        forget = OBJECTIVES[settings.objective](
            self.model,
            self.base,
            self._forget_batch(),
            truncation=settings.truncation,
            negative_guidance=settings.negative_guidance,
        ).mean()
        grad_forget = torch.autograd.grad(forget, self.parameters, materialize_grads=True)
        retain_loss = RETAIN_OBJECTIVES[settings.retain_objective]
        retain = retain_loss(self.model, self.base, *self._retain_batch()).mean()
        grad_retain = torch.autograd.grad(retain, self.parameters, materialize_grads=True)

        # The restricted direction, written over grad_forget.
        products = gram(grad_forget, grad_retain)
        combine_(grad_forget, grad_retain, RULES[settings.method](products, settings.retain_weight))
        del grad_retain  # as large as the model: make room for Adam's moments

        # Adam's step along it.
        for parameter, gradient in zip(self.parameters, grad_forget, strict=True):
            parameter.grad = gradient
        warm_up = min(1.0, step / max(1.0, WARM_UP * settings.steps))
        self.optimizer.param_groups[0]["lr"] = settings.learning_rate * warm_up
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        return StepReport(
            step=step,
            forget_loss=forget.item(),
            retain_loss=retain.item(),
            cosine=products.cosine,
            conflict=products.conflict,
            grad_forget_norm=products.forget_forget**0.5,
            grad_retain_norm=products.retain_retain**0.5,
            seconds=time.perf_counter() - started,
        )

    def _forget_batch(self) -> ForgetBatch:
        rows = self._rows(self.settings.batch_size)
        latents = self.sets.forget_latents[rows].to(self.base.device)
        noise, t = self._noise(latents)
        return ForgetBatch(
            latents=latents,
            conditioning=self.sets.forget_conditioning[rows],
            parallel_latents=self.sets.retain_latents[rows].to(self.base.device),
            parallel_conditioning=self.sets.retain_conditioning[rows],
            noise=noise,
            t=t,
        )

    def _retain_batch(self) -> tuple[Tensor, Conditioning, Tensor, Tensor]:
        rows = self._rows(self.settings.batch_size * self.settings.retain_batch_factor)
        latents = self.sets.retain_latents[rows].to(self.base.device)
        return latents, self.sets.retain_conditioning[rows], *self._noise(latents)

    def _rows(self, count: int) -> Tensor:
        total = len(self.sets.forget_latents)
        return torch.randint(total, (count,), generator=self.generator)

    def _noise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian noise and timesteps spread evenly over the schedule (stratified: the same
        expectation, less variance), drawn on the CPU so that devices agree."""
        count = len(latents)
        spread = (torch.arange(count) + torch.rand(count, generator=self.generator)) / count
        t = (spread * self.base.timesteps).long().clamp(max=self.base.timesteps - 1)
        noise = torch.randn(latents.shape, generator=self.generator)
        return noise.to(latents.device), t.to(latents.device)
