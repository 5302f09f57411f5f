"""The cost of a run, in denoiser passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.foundation.cost import JUDGING, Cost
from unlearn_core.foundation.progress import MAKING_IMAGES, UNLEARNING, Progress
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

STEPS, BATCH, PAIRS, SAMPLING = 3, 2, 4, 2
SETTINGS = UnlearnSettings(
    steps=STEPS, batch_size=BATCH, picture_pairs=PAIRS, picture_steps=SAMPLING
)
ROWS = STEPS * BATCH


def passes(model: ModelHandle, pairs: PromptPairs, **changes: Any) -> dict[str, int]:
    guidance = changes.pop("guidance_scale", 4.0)
    drawing = GenerationSettings(steps=9, guidance_scale=guidance)
    task = Task(model, pairs, replace(SETTINGS, **changes), drawing)
    return dict(unlearn(task, Observer()).cost.passes)


@pytest.mark.parametrize(
    ("changes", "per_row"),
    [
        # Forget: with a backward pass 3, the frozen model twice 2; retain: 3, the frozen model 1.
        ({}, 9),
        ({"negative_guidance": 0.0}, 8),
        ({"retain_batch_factor": 2}, 5 + 2 * 4),
        ({"objective": "ascent", "retain_objective": "denoise"}, 3 + 3),
        ({"objective": "relabel", "retain_objective": "denoise"}, 3 + 3),
        ({"objective": "NPO", "retain_objective": "denoise"}, 4 + 3),
    ],
)
def test_a_training_step(
    sd_model: ModelHandle, pairs: PromptPairs, changes: dict[str, Any], per_row: int
) -> None:
    assert passes(sd_model, pairs, **changes)["unlearning"] == ROWS * per_row


def test_drawing_with_and_without_guidance(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    pictures = 2 * PAIRS * SAMPLING
    assert passes(sd_model, pairs)["drawing"] == 2 * pictures
    assert passes(sd_model, pairs, guidance_scale=1.0)["drawing"] == pictures
    assert passes(sd_model, pairs, method=UCE) == {"drawing": 0, "unlearning": 0, "evaluating": 0}


def test_cached_pictures_count_as_if_drawn(
    sd_model: ModelHandle, pairs: PromptPairs, tmp_path: Any
) -> None:
    task = Task(sd_model, pairs, SETTINGS, GenerationSettings(steps=SAMPLING))
    runs = [unlearn(task, Observer(), cache=LatentCache(tmp_path)) for _ in range(2)]
    assert runs[0].cost.passes == runs[1].cost.passes


def test_evaluation(sd_model: ModelHandle, pairs: PromptPairs) -> None:
    task = Task(sd_model, pairs, SETTINGS, GenerationSettings(steps=SAMPLING))
    progress = Progress()
    unlearned = unlearn(task, Observer(), progress=progress)
    settings = EvaluationSettings(pictures=2, generation=GenerationSettings(steps=SAMPLING))
    cost = evaluate(unlearned, settings, progress=progress).cost
    # Two models, three kinds of prompts, guidance. The cost of the run before is not included.
    assert cost.passes == {"drawing": 0, "unlearning": 0, "evaluating": 2 * 3 * 2 * SAMPLING * 2}
    both = (unlearned.cost + cost).as_json()["denoiser_passes"]
    assert both["total"] == sum(unlearned.cost.passes.values()) + sum(cost.passes.values())


def test_previews_during_a_phase_count_as_evaluation() -> None:
    progress = Progress()
    with progress.phase(UNLEARNING, 1):
        progress.silent(JUDGING).count_passes(5)
        progress.silent().silent().count_passes(7)
    with progress.phase(MAKING_IMAGES, 1):
        progress.count_passes(2)
    assert progress.passes == {"drawing": 2, "unlearning": 7, "evaluating": 5}


def test_costs_add_up() -> None:
    one = Cost({"unlearning": 1.0}, {"drawing": 2}, 10)
    other = Cost({"unlearning": 2.0, "evaluating": 3.0}, {"evaluating": 4}, None)
    assert one + other == Cost(
        {"unlearning": 3.0, "evaluating": 3.0}, {"drawing": 2, "evaluating": 4}, 10
    )
