"""The estimate of a run's memory, beside the memory that its tensors really need."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unlearn_core.dataset.previews import PreviewPrompts
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.estimate import Sizes, sizes
from unlearn_core.unlearning.fitting import choose
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.plan import ERROR, Plan
from unlearn_core.unlearning.profile import LiveBytes, Section, fake_mode, profile
from unlearn_core.unlearning.scopes import trainable
from unlearn_core.unlearning.settings import UnlearnSettings

from ..watching import Recorder, StopError, Stopping

SETTINGS = UnlearnSettings(
    steps=2, batch_size=6, learning_rate=1e-3, warm_start=False, prompt_protection=0.0
)
EXAMPLE = Sizes(
    model=1000,
    trained=100,
    optimizer=200,
    gradient=100,
    one=[Section(50), Section(60, 60), Section(0, 100)],
    two=[Section(100), Section(70, 60), Section(0, 100)],
)
"""A batch of 4 needs 200 bytes in its step. In parts of 2 or 1, the earlier gradients are part of
a sum of 100 bytes, and a part needs 100 or 60."""


@pytest.mark.parametrize("scope", ["xattn", "lora", "full"])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_the_estimate_is_the_memory_of_two_steps(
    sd_model: ModelHandle, sets: TrainingSets, scope: str, micro_batch: int | None
) -> None:
    """Within 15 %, without the loaded model."""
    plan = Plan(micro_batch)
    settings = resolved(replace(SETTINGS, scope=scope), sd_model)
    measured = sizes(sd_model, settings, "a cat")
    with LiveBytes() as live:
        list(Unlearning(sd_model, sets, settings, plan=plan))
    needed = measured.total(plan, settings.batch_size) - measured.model
    assert needed == pytest.approx(live.peak, rel=ERROR)


def peak(sections: list[Section]) -> int:
    return max(section.peak + section.gradients for section in sections)


@pytest.mark.parametrize("scope", ["auto", "lora"])
def test_tensors_without_values_have_the_size_of_those_of_a_real_step(
    model: ModelHandle, scope: str
) -> None:
    settings = resolved(replace(SETTINGS, scope=scope), model)
    trained, parameters = trainable(model, settings)
    rows = model.encode_prompts(["a cat", "a dog"])
    fake = fake_mode(model)
    expected = profile(trained, parameters, rows)
    sections = profile(trained, parameters, rows, fake=fake)
    assert fake is not None
    assert len(sections) == len(expected)
    assert peak(sections) == pytest.approx(peak(expected), rel=ERROR)


def test_previews_are_part_of_the_estimate(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    previews = PreviewPrompts.of(pairs, GenerationSettings(steps=2))
    drawing = replace(previews.settings, batch_size=len(previews.prompts))
    settings = resolved(replace(SETTINGS, scope="xattn", batch_size=1), sd_model)
    measured = sizes(sd_model, settings, "a cat", drawing=drawing)
    with LiveBytes() as live:
        replace(previews, settings=drawing).draw(sd_model)
    assert measured.drawing == pytest.approx(live.peak, rel=ERROR)
    assert measured.preview() > replace(measured, drawing=0).preview()


def test_encoders_count_while_a_preview_is_drawn() -> None:
    """They have left the device in a step, and the gradients are gone in a preview."""
    example = replace(EXAMPLE, released=700, drawing=50)
    assert example.preview() == 1000 + 100 + 200 + 700 + 50
    assert example.total(Plan(), 4) == example.preview()
    plan = choose(example, replace(SETTINGS, batch_size=4), 5000)
    assert plan.available_bytes == 5000 + 1000 + 700


def test_the_estimate_is_shown_as_a_phase_and_can_be_stopped(sd_model: ModelHandle) -> None:
    settings = resolved(replace(SETTINGS, scope="xattn"), sd_model)
    progress = Recorder()
    sizes(sd_model, settings, "a cat", progress)
    assert progress.counts("estimating memory") == [0, 1, 2, 3]
    weights = len(trainable(sd_model, settings)[1])
    assert progress.checks > 2 * weights, "also within a step"
    with pytest.raises(StopError):
        sizes(sd_model, settings, "a cat", Stopping(at=weights))


def test_bytes_are_counted_as_long_as_a_tensor_exists() -> None:
    given = torch.zeros(1000)
    with LiveBytes() as live:
        first = given + 1
        view = first[:10]
        given.add_(1)
        del first
        assert (live.now, live.peak) == (4000, 4000)
        second = given * 2
        assert live.now == 8000
        del view
        assert (live.now, live.peak) == (4000, 8000)
        assert live.restart() == 8000
        assert live.peak == 4000
        del second
    assert live.now == 0


def test_the_number_of_pictures_counts_in_each_section() -> None:
    """The gradients at the end of a step do not grow with the batch, the activations do."""
    assert [EXAMPLE.step(count) for count in (1, 2, 3, 4)] == [120, 130, 150, 200]
    assert [EXAMPLE.step(count, accumulates=True) for count in (1, 2, 3)] == [60, 100, 150]
    parts = EXAMPLE.parts(Plan(2), 4)
    assert parts["gradients"] == 200, "that of forgetting, and the sum of the parts so far"
    assert parts["step"] == 100, "the gradients of earlier weights are in that sum already"
    assert EXAMPLE.total(Plan(), 4) == 1000 + 100 + 200 + 100 + 200
