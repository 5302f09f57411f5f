"""Steps in parts: less memory, and the same gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.foundation.interruption import Interruptible
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import OBJECTIVES, RETAIN_OBJECTIVES, STOP_ABOVE
from unlearn_core.unlearning.optimizer import Change
from unlearn_core.unlearning.plan import Plan
from unlearn_core.unlearning.profile import LiveBytes
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
        # The loss of DUO is 0 at the start: the difference of two equal sums.
        assert one.forget_loss == pytest.approx(other.forget_loss, rel=1e-3, abs=1e-6)
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


def test_a_step_can_be_stopped_between_its_parts(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the checks within a slow part."""
    for name in ("_before", "_after"):
        monkeypatch.setattr(Interruptible, name, lambda *_: None)
    checks = []
    for micro_batch in (None, 1):
        progress = Recorder()
        run = Unlearning(sd_model, sets, SETTINGS, progress, Plan(micro_batch))
        before = progress.checks
        next(iter(run))
        checks.append(progress.checks - before)
    assert checks[1] - checks[0] == 2 * (BATCH - 1)


def test_parts_need_no_further_set_of_gradients(sd_model: ModelHandle, sets: TrainingSets) -> None:
    """Each part's gradient of a weight is added to the sum before that of the next weight."""
    run = Unlearning(sd_model, sets, replace(SETTINGS, scope="full"))
    one_set = sum(parameter.nbytes for parameter in run.parameters)

    def losses() -> Tensor:
        squares = [(p * p).sum() for p in run.parameters]
        return torch.stack(squares).sum().view(1)

    with LiveBytes() as live:
        _, gradients = run._gradient((losses() for _ in range(3)), count=3)
        assert one_set < live.peak < 1.5 * one_set
    for gradient, parameter in zip(gradients, run.parameters, strict=True):
        assert torch.allclose(gradient, 2 * parameter)  # the mean over three
        assert parameter.grad is None


def with_little_memory(run: Unlearning, pictures: int, errors: list[BaseException]) -> None:
    """Let the model run out of memory with more than this number of pictures, as long as there are
    errors left."""
    network: Any = run.model
    network.denoiser.register_forward_pre_hook(partial(_fail, pictures, errors))


def _fail(pictures: int, errors: list[BaseException], _: object, inputs: tuple[Tensor]) -> None:
    if torch.is_grad_enabled() and len(inputs[0]) > pictures and errors:
        raise errors.pop()


FULL = torch.OutOfMemoryError("Tried to allocate 20.00 GiB.\nmore")
CPU_FULL = RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")


@pytest.mark.parametrize("error", [FULL, CPU_FULL], ids=type)
@pytest.mark.parametrize("changes", [{}, {"saliency": 0.5}, {"retain_ema": 0.5}], ids=str)
def test_a_step_that_runs_out_of_memory_is_repeated_in_smaller_parts(
    sd_model: ModelHandle, sets: TrainingSets, error: RuntimeError, changes: dict[str, Any]
) -> None:
    """With the same batch, so that the result is that of a run with enough memory."""
    settings = replace(SETTINGS, **changes)
    whole = Unlearning(sd_model, sets, settings)
    list(whole)
    run = Unlearning(sd_model, sets, settings)
    with_little_memory(run, 2, [error])
    reports = list(run)
    assert run.plan == Plan(micro_batch=2, failed_step=1)
    assert str(run.plan) == "Step 1 ran out of memory. The run continues with 2 pictures at a time."
    assert [report.step for report in reports] == [1, 2]
    assert torch.equal(run.batches.generator.get_state(), whole.batches.generator.get_state())
    for one, other in zip(reports, whole.reports, strict=True):
        assert one.forget_loss == pytest.approx(other.forget_loss, rel=1e-3)
    start = flat(p for n, p in sd_model.named_parameters() if ".attn2." in n)
    change = flat(whole.parameters) - start
    assert (flat(run.parameters) - flat(whole.parameters)).norm() <= 1e-2 * change.norm()


def test_a_second_failure_ends_the_run_with_the_state_of_the_last_step(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    next(iter(run))
    before = flat(run.parameters)
    with_little_memory(run, 1, [FULL, FULL])
    with pytest.raises(torch.OutOfMemoryError) as failure:
        list(run)
    assert str(failure.value) == (
        "Step 2 ran out of memory with 2 pictures at a time (Tried to allocate 20.00 GiB.). Choose "
        "a smaller batch_size or smaller pictures (image_size). Or begin anew with scope 'lora, "
        "cross-attention': a run that has begun cannot change its scope."
    )
    assert len(run.result().reports) == 1
    assert torch.equal(flat(run.parameters), before)


def test_a_single_picture_is_never_tried_twice(sd_model: ModelHandle, sets: TrainingSets) -> None:
    run = Unlearning(sd_model, sets, replace(SETTINGS, batch_size=1))
    with_little_memory(run, 0, [FULL])
    with pytest.raises(torch.OutOfMemoryError, match="1 picture at a time"):
        list(run)


def test_other_errors_end_the_run_at_once(sd_model: ModelHandle, sets: TrainingSets) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    with_little_memory(run, 0, [RuntimeError("shapes do not match")])
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(run)
    assert run.plan == Plan()
