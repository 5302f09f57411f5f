"""A run that goes wrong returns to its last good state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning import watch
from unlearn_core.unlearning.alarms import (
    DOES_NOT_MOVE,
    GAVE_UP,
    GAVE_UP_NOT_FINITE,
    LOOK_DOES_NOT_MOVE,
    MOST_RETURNS,
    NOISE,
    NOT_PROTECTED,
    Reference,
    allowed_damage,
    does_not_move,
    is_suspicious,
    moved,
    protects,
)
from unlearn_core.unlearning.breakdown import NOT_FINITE, RAN_AWAY, NotFiniteError
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.recipes import RECIPES, from_recipe
from unlearn_core.unlearning.results import StepReport
from unlearn_core.unlearning.settings import UnlearnSettings

from ..watching import Recorder, StopError, Stopping

SETTINGS = UnlearnSettings(scope="xattn", steps=6, batch_size=3, learning_rate=1e-3)
REFERENCE = Reference(error=0.1, worst=0.7, power=1.0, forget_loss=0.2)


def weights(run: Unlearning) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def kinds(run: Unlearning) -> list[str]:
    return [alarm.kind for alarm in run.alarms]


def without_time(reports: list[StepReport]) -> list[StepReport]:
    return [replace(report, seconds=0.0) for report in reports]


def breaking(
    run: Unlearning,
    at: int,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    value: float = float("nan"),
) -> None:
    """Sets all weights to ``value`` after step ``at``, the first ``times`` times that it is
    reached."""
    take_step = run.optimizer.step
    left = times

    def step(*arguments: Any, **options: Any) -> object:
        nonlocal left
        change = take_step(*arguments, **options)
        if len(run.reports) + 1 == at and left:
            left -= 1
            with torch.no_grad():
                for parameter in run.parameters:
                    parameter.fill_(value)
        return change

    monkeypatch.setattr(run.optimizer, "step", step)


def test_a_run_without_an_alarm_is_the_same_as_without_the_watch(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also with the moving average of the retain gradient."""
    settings = replace(SETTINGS, retain_ema=0.5)
    watched = Unlearning(sd_model, sets, settings)
    reports = list(watched)
    assert not {RAN_AWAY, NOT_FINITE, GAVE_UP, GAVE_UP_NOT_FINITE} & set(kinds(watched))
    assert watched.watch.good is not None
    monkeypatch.setattr(watch.Watch, "before_update", lambda *_: None)
    monkeypatch.setattr(watch.Watch, "after_last_step", lambda _: None)
    alone = Unlearning(sd_model, sets, settings)
    assert without_time(list(alone)) == without_time(reports)
    assert same(weights(watched), weights(alone))


def test_the_measurement_can_be_stopped_between_its_rows(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """Each of them takes a while with a full-size model on the CPU."""
    progress = Recorder()
    measured = Unlearning(sd_model, sets, SETTINGS, progress).watch
    before = progress.checks
    _ = measured.reference
    assert progress.checks - before == 3 * watch.CHECK_ROWS / watch.ROWS_AT_ONCE
    stopped = Unlearning(sd_model, sets, SETTINGS, Stopping(at=progress.checks)).watch
    with pytest.raises(StopError):
        _ = stopped.reference


@pytest.mark.parametrize("at", [3, 6])
def test_a_gradient_that_is_not_finite_is_undone(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Also after the last step, whose result no later step uses."""
    results = []
    for _ in range(2):
        run = Unlearning(sd_model, sets, replace(SETTINGS, retain_ema=0.5))
        breaking(run, at, 1, monkeypatch)
        steps = [report.step for report in run]
        assert steps == ([1, 2, 3, 3, 4, 5, 6] if at == 3 else [1, 2, 3, 4, 5, 6])
        assert [report.step for report in run.reports] == [1, 2, 3, 4, 5, 6]
        (alarm,) = [alarm for alarm in run.alarms if alarm.back_to is not None]
        assert (alarm.kind, alarm.step, alarm.back_to) == (
            (NOT_FINITE, 4, 2) if at == 3 else (NOT_FINITE, 6, 5)
        )
        assert "step" in alarm.message
        assert all(parameter.isfinite().all() for parameter in run.parameters)
        results.append((weights(run), without_time(run.reports), run.alarms))
    assert same(results[0][0], results[1][0]), "going back is deterministic"
    assert results[0][1:] == results[1][1:]


def test_a_repeated_step_sees_the_same_batch_with_a_lower_rate(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    rates: list[float] = []
    take_step = run.optimizer.step

    def spy(*arguments: Any, **options: Any) -> object:
        rates.append(arguments[4])
        return take_step(*arguments, **options)

    monkeypatch.setattr(run.optimizer, "step", spy)
    breaking(run, 3, 1, monkeypatch)
    reports = list(run)
    first, second = without_time([report for report in reports if report.step == 3])
    assert (first.forget_loss, first.retain_loss) == (second.forget_loss, second.retain_loss)
    assert rates[3] == pytest.approx(rates[2] / 4)


def test_a_run_that_breaks_again_and_again_ends_with_the_last_good_state(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    breaking(run, 3, 100, monkeypatch)
    list(run)
    assert kinds(run) == [NOT_FINITE] * MOST_RETURNS + [GAVE_UP_NOT_FINITE]
    result = run.result()
    assert [report.step for report in result.reports] == [1, 2]
    assert result.alarms == tuple(run.alarms)
    assert "lower learning_rate" in run.alarms[-1].message
    assert list(run) == [], "it does not go on"
    monkeypatch.undo()
    two = Unlearning(sd_model, sets, SETTINGS)
    for report in two:
        if report.step == 2:
            break
    assert same(weights(run), weights(two))


def test_a_run_that_breaks_at_its_first_step_fails(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    breaking(run, 1, 100, monkeypatch)
    with pytest.raises(NotFiniteError, match="lower learning_rate"):
        list(run)
    result = run.result()
    assert result.reports == ()
    assert all(parameter.isfinite().all() for parameter in run.parameters)


def test_a_retain_loss_beyond_the_limit_is_undone(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearning(sd_model, sets, replace(SETTINGS, scope="full"))
    breaking(run, 3, 1, monkeypatch, value=1.0)
    assert [report.step for report in run] == [1, 2, 3, 3, 4, 5, 6]
    (alarm,) = [alarm for alarm in run.alarms if alarm.back_to is not None]
    assert (alarm.kind, alarm.step, alarm.back_to) == (RAN_AWAY, 4, 2)
    assert all(report.retain_loss < run.watch.reference.error for report in run.reports)


def test_settings_without_protection_only_warn(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, scope="full", method="forget only", steps=4)
    run = Unlearning(sd_model, sets, settings)
    breaking(run, 1, 1, monkeypatch, value=1.0)
    assert [report.step for report in run] == [1, 2, 3, 4]
    assert kinds(run)[0] == NOT_PROTECTED
    assert kinds(run).count(NOT_PROTECTED) == 1
    assert NOISE in kinds(run)


@pytest.mark.parametrize("at", [3, 4])
def test_settings_without_protection_keep_the_state_before_a_step_that_is_not_finite(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Also if it is the last step, whose result no later step uses."""
    settings = replace(SETTINGS, scope="full", method="forget only", steps=4)
    run = Unlearning(sd_model, sets, settings)
    breaking(run, at, 100, monkeypatch)
    list(run)
    assert kinds(run)[-2:] == [NOT_FINITE, GAVE_UP_NOT_FINITE]
    assert len(run.result().reports) == at - 1
    assert all(parameter.isfinite().all() for parameter in run.parameters)


@pytest.mark.parametrize("method", ["forget only", "restricted gradient"])
def test_a_run_that_ends_early_gives_the_last_good_state(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """No later step looks at the last one before Stop, or before the step to keep."""
    run = Unlearning(sd_model, sets, replace(SETTINGS, method=method))
    breaking(run, 3, 1, monkeypatch)
    steps = iter(run)
    for _ in range(3):
        next(steps)
    run.end_early()
    (alarm,) = run.alarms
    assert (alarm.kind, alarm.step, alarm.back_to) == (GAVE_UP_NOT_FINITE, 3, 2)
    assert "precision fp32" in alarm.message
    assert len(run.result().reports) == 2
    assert all(parameter.isfinite().all() for parameter in run.parameters)
    assert [report.step for report in steps] == [3, 4, 5, 6], "it can still be continued"


def test_a_run_that_ends_early_without_a_good_step_is_an_error(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearning(sd_model, sets, SETTINGS)
    breaking(run, 1, 1, monkeypatch)
    next(iter(run))
    with pytest.raises(NotFiniteError, match=r"training broke down: .*at step 1"):
        run.end_early()


def test_the_names_in_a_translated_alarm_are_separated_by_commas() -> None:
    alarm = does_not_move(2, ["ink", "noto"])
    assert "'ink' and 'noto'" in alarm.message
    assert alarm.values == {"word": "'ink', 'noto'"}


def test_a_forget_loss_that_does_not_move(sd_model: ModelHandle, sets: TrainingSets) -> None:
    settings = replace(SETTINGS, learning_rate=1e-9, warm_start=False, steps=2)
    run = Unlearning(sd_model, sets, settings)
    list(run)
    (alarm,) = run.alarms
    assert (alarm.kind, alarm.step, alarm.values) == (DOES_NOT_MOVE, 2, {"word": "'cat'"})
    assert "'cat'" in alarm.message


def test_a_warm_start_counts_as_movement() -> None:
    """Its loss is low from the first step; the frozen model is the reference."""
    assert moved(0.1, REFERENCE, "erase")
    assert not moved(0.195, REFERENCE, "erase")
    assert not moved(0.3, REFERENCE, "erase")
    assert not moved(float("nan"), REFERENCE, "erase")
    assert moved(-0.5, replace(REFERENCE, forget_loss=-0.1), "ascent")


def test_npo_with_a_small_beta_moves_although_its_loss_is_large() -> None:
    """Near beta 0 it is ascent plus a constant, 2 ln(2) / beta."""
    large = replace(REFERENCE, forget_loss=1000.0)
    assert moved(999.9, large, "NPO"), "the error has doubled"
    assert not moved(999.999, large, "NPO")
    assert not moved(999.9, large, "erase")


def test_a_loss_that_starts_at_zero_moves_by_a_share_of_the_error() -> None:
    """Such as the preference between two sets."""
    from_zero = replace(REFERENCE, forget_loss=0.0)
    assert moved(-0.01, from_zero, "prefer (DUO)")
    assert not moved(-0.001, from_zero, "prefer (DUO)")


def test_a_look_that_does_not_move_is_not_called_an_unknown_word() -> None:
    alarm = does_not_move(2, [])
    assert alarm.kind == LOOK_DOES_NOT_MOVE
    assert "word" not in alarm.message
    assert "raise learning_rate or steps" in alarm.message


def test_a_single_difficult_batch_is_not_suspicious() -> None:
    """A batch at a low noise level has a high 'denoise' loss."""
    paper = replace(SETTINGS, retain_objective="denoise")
    assert not is_suspicious(0.75, paper, REFERENCE)
    assert is_suspicious(0.85, paper, REFERENCE)
    assert is_suspicious(0.15, SETTINGS, REFERENCE)
    assert not is_suspicious(0.05, SETTINGS, REFERENCE)
    assert is_suspicious(float("nan"), SETTINGS, REFERENCE)
    # ``harden`` disturbs the model on the way, within a wider limit.
    allowed = allowed_damage(replace(SETTINGS, harden=True))
    assert not is_suspicious(0.75, SETTINGS, REFERENCE, allowed)
    assert is_suspicious(0.85, SETTINGS, REFERENCE, allowed)


def test_recipes_that_do_not_protect_the_rest() -> None:
    recipes = [name for name in RECIPES if not name.startswith("UCE")]
    unprotected = {name for name in recipes if not protects(from_recipe(name))}
    assert unprotected == {"ESD-x", "ESD-u", "ESD-u (2025)", "gradient ascent"}


def test_a_first_edit_that_goes_too_far_is_left_to_the_steps(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """Going back could not undo it: it happens before the first step."""
    run = Unlearning(sd_model, sets, replace(SETTINGS, scope="full", learning_rate=1e-6))
    with torch.no_grad():
        for parameter in run.parameters:
            parameter.fill_(1.0)
    list(run)
    assert run.watch.start_distance > run.watch.reference.error
    assert len(run.reports) == run.settings.steps
    assert not {GAVE_UP, RAN_AWAY} & set(kinds(run))
