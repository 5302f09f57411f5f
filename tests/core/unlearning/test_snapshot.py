"""A run restored from its stored state ends like an uninterrupted one, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.saving.resume import read_state, write_state
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.objectives import OBJECTIVES
from unlearn_core.unlearning.plan import Plan
from unlearn_core.unlearning.recipes import RECIPES, from_recipe
from unlearn_core.unlearning.results import StepReport
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

from ..watching import StopError, Stopping

IDENTITY: dict[str, Any] = {"model": "tiny"}
SETTINGS = UnlearnSettings(scope="xattn", steps=4, batch_size=3, learning_rate=1e-3)


def finished(run: Unlearning, steps: int | None = None) -> Unlearning:
    """The run after ``steps`` finished steps; None for all."""
    for _ in run:
        if len(run.reports) == steps:
            break
    return run


def stored(run: Unlearning, file: Path) -> None:
    write_state(file, run.snapshot(), IDENTITY)


def resumed(run: Unlearning, file: Path) -> Unlearning:
    run.restore(read_state(file, IDENTITY))
    return run


def assert_equal(left: Unlearning, right: Unlearning) -> None:
    for a, b in zip(left.parameters, right.parameters, strict=True):
        assert torch.equal(a, b)
    assert without_time(left.reports) == without_time(right.reports)
    assert left.alarms == right.alarms


def without_time(reports: list[StepReport]) -> list[StepReport]:
    return [replace(report, seconds=0.0) for report in reports]


CASES = {
    **{
        f"objective {name}": replace(SETTINGS, objective=name, truncation=100.0)
        for name in OBJECTIVES
    },
    **{
        f"recipe {name}": replace(
            from_recipe(name, steps=4, batch_size=3, learning_rate=1e-4), scope="xattn"
        )
        for name in RECIPES
        if from_recipe(name).method != UCE
    },
    "lora": replace(SETTINGS, scope="lora", lora_rank=2),
    "full": replace(SETTINGS, scope="full"),
    "text path": replace(SETTINGS, scope="text path"),
    "mask": replace(SETTINGS, saliency=0.5, warm_start=False),
    "average": replace(SETTINGS, retain_ema=0.5),
    "protected": replace(SETTINGS, prompt_protection=1.0, warm_start=True),
    "empty prompts": replace(SETTINGS, empty_share=0.5, paired=False, retain_batch_factor=2),
    "limited": replace(SETTINGS, method="epsilon-constrained", retain_weight=0.001),
    "in parts": replace(SETTINGS, weight_decay=0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    sd_model: ModelHandle, sets: TrainingSets, tmp_path: Path, name: str
) -> None:
    plan = Plan(micro_batch=2) if name == "in parts" else None
    expected = finished(Unlearning(sd_model, sets, CASES[name], plan=plan))
    stored(finished(Unlearning(sd_model, sets, CASES[name], plan=plan), 2), tmp_path / "state")
    run = resumed(Unlearning(sd_model, sets, CASES[name]), tmp_path / "state")
    assert run.resumed_at == 2
    assert [report.step for report in run] == [3, 4]
    assert_equal(run, expected)


def breaking(run: Unlearning, at: int, monkeypatch: pytest.MonkeyPatch) -> Unlearning:
    """Damages the weights after step ``at``, until the run has gone back once."""
    take_step = run.optimizer.step

    def step(*arguments: Any, **options: Any) -> object:
        change = take_step(*arguments, **options)
        if len(run.reports) + 1 == at and run.watch.returns == 0:
            with torch.no_grad():
                for parameter in run.parameters:
                    parameter.fill_(100.0)
        return change

    monkeypatch.setattr(run.optimizer, "step", step)
    return run


@pytest.mark.parametrize("at", [2, 4])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_an_undone_step_before_or_after_the_stored_one(
    sd_model: ModelHandle,
    sets: TrainingSets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    stop: int,
) -> None:
    """Stored after the report with this number; those of an undone step count as well."""
    settings = replace(SETTINGS, scope="full", retain_ema=0.3)
    expected = finished(breaking(Unlearning(sd_model, sets, settings), at, monkeypatch))
    assert [a.step for a in expected.alarms if a.back_to is not None] == [min(at + 1, 4)]
    run = breaking(Unlearning(sd_model, sets, settings), at, monkeypatch)
    for _ in zip(range(stop), run, strict=False):
        pass
    stored(run, tmp_path / "state")
    assert run.snapshot().is_finite
    again = resumed(
        breaking(Unlearning(sd_model, sets, settings), at, monkeypatch), tmp_path / "state"
    )
    assert_equal(finished(again), expected)


@pytest.mark.parametrize("retain_ema", [0.0, 0.5])
def test_a_stop_at_any_check_loses_no_finished_step(
    sd_model: ModelHandle, sets: TrainingSets, tmp_path: Path, retain_ema: float
) -> None:
    """Also between two batches of a step, and in the measurements of the watch."""
    settings = replace(SETTINGS, steps=2, retain_ema=retain_ema)
    progress = Stopping(0)
    expected = Unlearning(sd_model, sets, settings, progress)
    before = progress.checks
    finished(expected)
    assert progress.checks - before >= 4
    file = tmp_path / "state"
    stride = max(1, (progress.checks - before) // 8)  # there is a check in every module
    for at in range(before + 1, progress.checks + 1, stride):
        run = Unlearning(sd_model, sets, settings, Stopping(at))
        try:
            finished(run)
        except StopError:
            if run.reports:
                assert run.whole
                stored(run, file)
                again = resumed(Unlearning(sd_model, sets, settings), file)
                assert again.resumed_at == len(run.reports)
                assert_equal(finished(again), expected)


def test_a_step_that_fails_in_the_middle_of_the_update_is_not_whole(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(Unlearning(sd_model, sets, SETTINGS), 2)
    monkeypatch.setattr(run.optimizer, "_update", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finished(run)
    assert not run.whole


def test_the_state_of_a_finished_run_contains_only_its_weights(
    sd_model: ModelHandle, sets: TrainingSets, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    run = finished(Unlearning(sd_model, sets, SETTINGS), 3)
    stored(run, file)
    size = file.stat().st_size
    stored(finished(run), file)
    assert file.stat().st_size < size / 2
    again = resumed(Unlearning(sd_model, sets, SETTINGS), file)
    assert list(again) == []
    assert_equal(again, run)
