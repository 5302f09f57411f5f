"""Steps in parts: less memory, and the same gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import OBJECTIVES, RETAIN_OBJECTIVES, STOP_ABOVE
from unlearn_core.unlearning.optimizer import Change
from unlearn_core.unlearning.plan import Plan
from unlearn_core.unlearning.settings import UnlearnSettings

from ..watching import Recorder

BATCH = 5
SETTINGS = UnlearnSettings(
    scope="xattn", steps=2, batch_size=BATCH, learning_rate=1e-3, truncation=100.0, warm_start=False
)


class Steps:
    """The gradients and the weights of a run."""

    def __init__(
        self, model: ModelHandle, sets: TrainingSets, settings: UnlearnSettings, plan: Plan
    ) -> None:
        run = Unlearning(model, sets, settings, plan=plan)
        self.start = flat(run.parameters)
        self.gradients: list[Tensor] = []
        step = run.optimizer.step

        def spy(*arguments: Any, restrict: bool) -> Change:
            self.gradients += [flat(arguments[0]), flat(arguments[1])]
            return step(*arguments, restrict=restrict)

        run.optimizer.step = spy  # type: ignore[method-assign]
        self.reports = list(run)
        self.change = flat(run.parameters) - self.start


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def assert_equal(parts: Steps, whole: Steps) -> None:
    """Equal except for rounding."""
    for one, other in zip(parts.gradients, whole.gradients, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm()
    assert (parts.change - whole.change).norm() <= 1e-2 * whole.change.norm()
    for one, other in zip(parts.reports, whole.reports, strict=True):
        assert one.forget_loss == pytest.approx(other.forget_loss, rel=1e-3)
        assert one.retain_loss == pytest.approx(other.retain_loss, rel=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(
    sd_model: ModelHandle, sets: TrainingSets, objective: str
) -> None:
    settings = replace(SETTINGS, objective=objective, empty_share=0.3)
    whole = Steps(sd_model, sets, settings, Plan())
    assert whole.gradients[0].norm() > 0
    for micro_batch in (1, 2, 3):
        assert_equal(Steps(sd_model, sets, settings, Plan(micro_batch)), whole)


@pytest.mark.parametrize("retain_objective", RETAIN_OBJECTIVES)
@pytest.mark.parametrize(
    "changes",
    [
        {"retain_batch_factor": 0},
        {"retain_batch_factor": 2, "retain_ema": 0.5, "paired": False},
        {"saliency": 0.5, "objective": "ascent"},
    ],
    ids=str,
)
def test_every_kind_of_retain_batch_and_the_mask_in_parts(
    sd_model: ModelHandle, sets: TrainingSets, retain_objective: str, changes: dict[str, Any]
) -> None:
    settings = replace(SETTINGS, retain_objective=retain_objective, **changes)
    whole = Steps(sd_model, sets, settings, Plan())
    assert_equal(Steps(sd_model, sets, settings, Plan(2)), whole)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_the_mean_error_of_the_whole_batch_stops_the_ascent(
    sd_model: ModelHandle, sets: TrainingSets, factor: float
) -> None:
    """Although the mean errors of some parts lie on the other side of 'truncation'."""
    settings = replace(SETTINGS, objective=STOP_ABOVE, steps=1)
    (report,) = Steps(sd_model, sets, settings, Plan()).reports
    settings = replace(settings, truncation=-factor * report.forget_loss)
    whole = Steps(sd_model, sets, settings, Plan())
    assert bool(whole.gradients[0].any()) is (factor > 1)
    for micro_batch in (1, 2, 3):
        assert_equal(Steps(sd_model, sets, settings, Plan(micro_batch)), whole)


def test_a_step_can_be_stopped_between_its_parts(sd_model: ModelHandle, sets: TrainingSets) -> None:
    checks = []
    for micro_batch in (None, 1):
        progress = Recorder()
        run = Unlearning(sd_model, sets, SETTINGS, progress, Plan(micro_batch))
        next(iter(run))
        checks.append(progress.checks)
    assert checks == [2, 2 * BATCH]
