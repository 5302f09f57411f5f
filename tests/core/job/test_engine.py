"""The run behind the command line and the node."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.methods import Run
from unlearn_core.unlearning.results import StepReport, UnlearnedModel
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

from ..watching import Recorder, StopError, Stopping

SETTINGS = UnlearnSettings(steps=4, batch_size=2)
DRAWING = GenerationSettings(steps=2, batch_size=4)


class Watcher(Observer):
    """Records each step and the result, and can end the run after a step."""

    def __init__(self, end_after: int = 0) -> None:
        self.end_after = end_after
        self.steps: list[int] = []
        self.results: list[UnlearnedModel] = []

    def after_step(self, report: StepReport) -> None:
        self.steps.append(report.step)

    def should_end(self, run: Run) -> bool:
        return len(self.steps) == self.end_after

    def after_run(self, run: Run) -> None:
        self.results.append(run.result())


def task(model: ModelHandle, pairs: PromptPairs, **changes: object) -> Task:
    return Task(model, pairs, replace(SETTINGS, **changes), DRAWING)


def test_the_phases_follow_one_another(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    progress, watcher = Recorder(), Watcher()
    result = unlearn(task(sd_model, pairs), watcher, progress=progress)
    assert list(progress.seconds) == ["making images", "first edit", "unlearning"]
    assert progress.counts("unlearning") == [0, 1, 2, 3, 4]
    assert watcher.steps == [1, 2, 3, 4]
    assert len(watcher.results) == 1
    assert len(result.reports) == 4
    assert result.pairs is pairs


def test_an_edit_needs_neither_pictures_nor_steps(
    sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    progress, watcher = Recorder(), Watcher()
    result = unlearn(task(sd_model, pairs, method=UCE), watcher, progress=progress)
    assert list(progress.seconds) == ["first edit"]
    assert (watcher.steps, len(watcher.results), result.reports) == ([], 1, ())
    assert result.model.changed_tensors()


@pytest.mark.parametrize(("end_after", "last_step"), [(2, None), (0, 2), (3, 2)])
def test_a_run_ends_at_the_requested_step(
    sd_model: ModelHandle, pairs: PromptPairs, end_after: int, last_step: int | None
) -> None:
    progress, watcher = Recorder(), Watcher(end_after)
    result = unlearn(task(sd_model, pairs), watcher, last_step=last_step, progress=progress)
    assert watcher.steps == [1, 2]
    assert len(result.reports) == 2
    assert progress.updates[-1] == ("unlearning", 2, 4 if last_step is None else last_step)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), ValueError("not finite"), KeyboardInterrupt()]
)
def test_the_last_good_state_of_a_failed_run_is_not_lost(
    sd_model: ModelHandle,
    pairs: PromptPairs,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    step = Unlearning._step

    def third_fails(self: Unlearning) -> StepReport:
        if len(self.reports) == 2:
            raise error
        return step(self)

    monkeypatch.setattr(Unlearning, "_step", third_fails)
    watcher = Watcher()
    with pytest.raises(type(error)):
        unlearn(task(sd_model, pairs), watcher)
    monkeypatch.undo()
    (last,) = watcher.results
    assert len(last.reports) == 2
    expected = unlearn(task(sd_model, pairs), Observer(), last_step=2).model.changed_tensors()
    actual = last.model.changed_tensors()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_a_stop_between_two_steps_preserves_the_finished_ones(
    sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    class StopsAfterTwo(Stopping):
        def check(self) -> None:
            if (self.name, self.done) == ("unlearning", 2):
                raise StopError

    watcher = Watcher()
    with pytest.raises(StopError):
        unlearn(task(sd_model, pairs), watcher, progress=StopsAfterTwo())
    assert watcher.steps == [1, 2]
    assert [len(result.reports) for result in watcher.results] == [2]


def test_without_diversity_all_pictures_come_from_the_first_pair(
    sd_model: ModelHandle, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[set[str]] = []
    encode = type(sd_model).encode_prompts
    first, *others = pairs.train

    def spy(self: ModelHandle, texts: list[str]) -> object:
        prompts.append(set(texts))
        return encode(self, texts)

    monkeypatch.setattr(type(sd_model), "encode_prompts", spy)
    result = unlearn(task(sd_model, pairs, diversified=False, steps=1), Observer())
    used = set().union(*prompts)
    assert {first.forget, first.retain} <= used
    assert not ({pair.forget for pair in others} - {first.forget}) & used
    assert result.pairs is pairs, "the evaluation uses all prompts"


def test_an_edit_takes_no_step_even_if_one_is_asked_for(
    sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    progress = Recorder()
    unlearn(task(sd_model, pairs, method=UCE), Observer(), last_step=3, progress=progress)
    assert list(progress.seconds) == ["first edit"]
