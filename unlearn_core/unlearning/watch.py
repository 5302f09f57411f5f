"""Watches a run: measures the damage, remembers the last good state, and goes back to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..foundation.checks import LARGEST_SEED
from ..foundation.cost import JUDGING
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import Progress
from ..foundation.signals import deferred
from ..models.counted import Counted
from ..models.protocol import Denoiser
from .alarms import (
    DAMAGE,
    MOST_RETURNS,
    NOT_PROTECTED,
    RATE_FACTOR,
    Alarm,
    Reference,
    allowed_damage,
    does_not_move,
    excess_of,
    gave_up,
    is_damaged,
    is_noise,
    is_suspicious,
    moved,
    not_protected,
    protects,
    turned_to_noise,
    went_back,
)
from .batches import Batches, RetainBatch
from .breakdown import NotFiniteError, WentWrongError
from .objectives import ForgetBatch, denoise, distill
from .rules import LIMITED
from .snapshot import Snapshot, listed

CHECK_ROWS, ROWS_AT_ONCE = 4, 2  # two without a backward pass need less memory than one with
COPIES = 10  # of the state during a run


@dataclass(frozen=True)
class Returns:
    """What a watch remembers beside the good state and the alarms.

    Attributes:
        count: how often the run went back.
        rate_factor: of the learning rate since then.
        gave_up: whether the run has ended because of it.
        start_distance: the distance before the first step, see ``is_damaged``.
        good_step: of the good state; None if there is none.
    """

    count: int = 0
    rate_factor: float = 1.0
    gave_up: bool = False
    start_distance: float = 0.0
    good_step: int | None = None


@dataclass(frozen=True, eq=False)
class GoodState:
    """A state without damage.

    Attributes:
        step: number of finished steps.
        weights: copies in main memory, so that the device needs no more memory.
        generator: state of the generator of the batches: a repeated step draws the same batch.
    """

    step: int
    weights: tuple[Tensor, ...]
    generator: Tensor


class Watch:
    """Notices when a run goes wrong.

    The retain loss of each step costs nothing to look at. If it is suspicious, the model is
    measured on rows that stay the same during the run. They have their own generator, so a run
    without an alarm is not changed.

    Adam's moments are not part of the good state. They would triple the copy, and they come from
    the learning rate that was too high; they begin again at zero instead.
    """

    def __init__(
        self,
        trained: Denoiser,
        frozen: Denoiser,
        parameters: Sequence[Tensor],
        batches: Batches,
        progress: Progress,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.progress = silent = progress.silent(JUDGING)
        self.trained, self.frozen = Counted(trained, silent), Counted(frozen, silent)
        self.parameters, self.batches, self.settings = parameters, batches, batches.settings
        self.alarms: list[Alarm] = []
        self.good: GoodState | None = None
        self.rate_factor, self.returns, self.gave_up = 1.0, 0, False
        self.start_distance = 0.0

    def snapshot(self) -> Snapshot:
        """What the watch needs to continue."""
        good = self.good
        returns = Returns(
            self.returns,
            self.rate_factor,
            self.gave_up,
            self.start_distance,
            None if good is None else good.step,
        )
        tensors: dict[str, Tensor] = {}
        if good is not None:
            tensors = {**listed("good", good.weights), "good_generator": good.generator}
        alarms = [asdict(alarm) for alarm in self.alarms]
        return Snapshot(tensors, {"alarms": alarms, "returns": asdict(returns)})

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """
        alarms, returns = snapshot.parts("alarms", Alarm), snapshot.part("returns", Returns)
        weights, good = snapshot.list_of("good", self.parameters), None
        if weights and returns.good_step is not None:
            copies = tuple(weight.to("cpu", copy=True) for weight in weights)
            good = GoodState(returns.good_step, copies, snapshot.generator("good_generator"))
        self.returns, self.rate_factor = returns.count, returns.rate_factor
        self.gave_up, self.start_distance = returns.gave_up, returns.start_distance
        self.alarms[:], self.good = alarms, good

    def before_update(self, finished: int, retain_loss: float, generator: Tensor) -> None:
        """Check the state after ``finished`` steps, whose retain loss is now known, and remember it
        now and then.

        Args:
            generator: its state at the beginning of the current step.

        Raises:
            WentWrongError: the state is damaged, and there is an earlier good one.
        """
        allowed = allowed_damage(self.settings)
        if finished == 0:
            if is_suspicious(retain_loss, self.settings, self.reference):
                self.start_distance = self._distance()
        elif protects(self.settings):
            if self._damaged(retain_loss, allowed):
                raise WentWrongError(WentWrongError.problem)
        elif not self._reported(NOT_PROTECTED) and self._damaged(retain_loss, allowed):
            self.alarms.append(not_protected(finished + 1))
        every = math.ceil(self.settings.steps / COPIES)
        if finished % every:
            return
        if allowed > DAMAGE and self._damaged(retain_loss, DAMAGE):
            return  # allowed on the way, but a run must not end with it
        self._remember(finished, generator)

    def weight(self, retain_loss: float) -> float:
        """The second argument of the rule in a step with this retain loss."""
        if self.settings.method == LIMITED:
            return excess_of(retain_loss, self.settings, self.reference)
        return self.settings.retain_weight

    def at_end(self, finished: int) -> None:
        """Check the state that becomes the result.

        Raises:
            WentWrongError: it is damaged, or its predictions are not finite.
        """
        distance = self._distance()
        if not math.isfinite(distance):
            raise NotFiniteError("a prediction was not finite")
        if protects(self.settings) and is_damaged(distance, self.reference, self.start_distance):
            raise WentWrongError(WentWrongError.problem)
        if is_noise(distance, self.reference):
            self.alarms.append(turned_to_noise(finished))

    def after_last_step(self) -> None:
        """Check the final state, and whether the run has had an effect.

        Raises:
            WentWrongError: it is damaged, or its predictions are not finite.
        """
        self.at_end(self.settings.steps)
        if self.settings.method == "retain only":
            return
        loss, objective = self._forget_loss(self.trained), self.settings.objective
        if not moved(loss, self.reference, objective):
            concepts = [part.concept for part in self.batches.sets.pairs.each]
            words = [concept.name for concept in concepts if concept.has_word]
            self.alarms.append(does_not_move(self.settings.steps, words))

    def go_back(self, step: int, error: WentWrongError, *, ends: bool = False) -> GoodState:
        """Restore the weights of the last good state and lower the learning rate.

        Args:
            step: where the error was noticed.
            ends: whether the run ends there.

        Raises:
            WentWrongError: there is no good state.
        """
        good = self.good
        if good is None:
            raise error
        with torch.no_grad():
            for parameter, weights in zip(self.parameters, good.weights, strict=True):
                parameter.copy_(weights)
        self.returns += 1
        self.gave_up = self.returns > MOST_RETURNS
        self.rate_factor *= RATE_FACTOR
        if self.gave_up or ends:
            alarm = gave_up(step, error, good.step)
        else:
            rate = self.settings.learning_rate * self.rate_factor
            alarm = went_back(step, error, good.step, rate)
        self.alarms.append(alarm)
        return good

    @cached_property
    def reference(self) -> Reference:
        """The frozen model on the rows of the check."""
        with torch.no_grad():
            errors = torch.cat(
                [denoise(self.frozen, self.frozen, *part) for _, part in self._rows()]
            )
            power = [
                self.frozen.predict(self.frozen.add_noise(latents, noise, t), prompts, t)
                .square()
                .mean()
                for _, (latents, prompts, noise, t) in self._rows()
            ]
        forget_loss = self._forget_loss(self.frozen)
        figures = errors.mean(), errors.max(), torch.stack(power).mean()
        error, worst, mean_power = map(self._agreed, figures)
        return Reference(error, worst, mean_power, forget_loss)

    def _rows(self) -> Iterator[tuple[ForgetBatch, RetainBatch]]:
        """Rows of both sets with noise, in small batches, which may take a while each."""
        for part in self._same_rows:
            self.progress.check()
            yield part

    @cached_property
    def _same_rows(self) -> list[tuple[ForgetBatch, RetainBatch]]:
        batches = copy.copy(self.batches)
        batches.settings = replace(
            self.settings,
            batch_size=ROWS_AT_ONCE,
            paired=False,
            retain_batch_factor=1,
            empty_share=0,
            retain_objective="distill",  # of pictures, whatever the run's own
        )
        batches.generator = torch.Generator().manual_seed(LARGEST_SEED - self.settings.seed)
        rows = []
        for _ in range(CHECK_ROWS // ROWS_AT_ONCE):
            forget = batches.forget()
            rows.append((forget, next(batches.retain(forget))))
        return rows

    def _damaged(self, retain_loss: float, allowed: float) -> bool:
        suspicious = is_suspicious(retain_loss, self.settings, self.reference, allowed)
        return suspicious and is_damaged(
            self._distance(), self.reference, self.start_distance, allowed
        )

    def _reported(self, kind: str) -> bool:
        return any(alarm.kind == kind for alarm in self.alarms)

    @torch.no_grad()
    def _distance(self) -> float:
        """Squared distance to the frozen model's predictions on retain pictures."""
        parts = [distill(self.trained, self.frozen, *part) for _, part in self._rows()]
        return self._agreed(torch.cat(parts).mean())

    @torch.no_grad()
    def _forget_loss(self, model: Denoiser) -> float:
        objective, strengths = self.settings.forget_loss, self.settings.strengths
        losses = [objective(model, self.frozen, batch, strengths) for batch, _ in self._rows()]
        return self._agreed(torch.cat(losses).mean())

    def _agreed(self, value: Tensor) -> float:
        """The main process's value: all processes must decide alike, although their devices may
        round differently."""
        self.processes.copy_main_([value])
        return value.item()

    def _remember(self, step: int, generator: Tensor) -> None:
        if self.good is not None and self.good.step == step:
            return
        if self.good is None:
            weights = tuple(p.detach().to("cpu", copy=True) for p in self.parameters)
            self.good = GoodState(step, weights, generator)
            return
        with deferred():  # the copies must not be a mixture of two steps
            for copied, parameter in zip(self.good.weights, self.parameters, strict=True):
                copied.copy_(parameter.detach())
            self.good = GoodState(step, self.good.weights, generator)
