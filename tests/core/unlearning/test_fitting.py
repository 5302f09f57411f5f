"""The choice of a plan that fits into the memory, and of a smaller scope."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.foundation.processes import ALONE, Processes
from unlearn_core.foundation.progress import Progress
from unlearn_core.job import engine
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.job.resumption import Resumption
from unlearn_core.models.protocol import Conditioning, ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.resume import stored_identity
from unlearn_core.unlearning import estimate, fitting
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.estimate import sizes
from unlearn_core.unlearning.fitting import TooLargeError, choose, plan_for
from unlearn_core.unlearning.plan import ERROR, Plan
from unlearn_core.unlearning.profile import Section
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UCE

from .test_estimate import EXAMPLE, SETTINGS

DRAWING = GenerationSettings(steps=2)
LOW_RANK = replace(SETTINGS, lora_rank=1)  # smaller than the weights of the tiny model


@pytest.mark.parametrize(
    ("available", "micro_batch"), [(1841, None), (1840 - 1, 1), (5000, None), (1700, 1)]
)
def test_the_largest_part_that_fits_is_chosen(available: int, micro_batch: int | None) -> None:
    plan = choose(EXAMPLE, replace(SETTINGS, batch_size=4), available - EXAMPLE.model)
    assert (plan.micro_batch, plan.available_bytes) == (micro_batch, available)
    assert plan.needed_bytes == EXAMPLE.total(plan, 4)


def test_half_a_batch_is_preferred_to_a_single_picture() -> None:
    needs_more = replace(EXAMPLE, two=[Section(1000), *EXAMPLE.one[1:]])
    plan = choose(needs_more, replace(SETTINGS, batch_size=4), 2000)
    assert plan.micro_batch == 2
    assert str(replace(plan, needed_bytes=6_100_000_000, available_bytes=11_200_000_000)) == (
        "Memory: about 6.1 of 11.2 GB, 2 pictures at a time."
    )


def test_too_little_memory_is_refused_where_it_is_known() -> None:
    settings = replace(SETTINGS, batch_size=4, scope="full")
    cure = "scope 'full' needs about .* choose scope 'lora' or smaller pictures"
    with pytest.raises(TooLargeError, match=cure):
        choose(EXAMPLE, settings, 100, smaller="lora")
    with pytest.raises(TooLargeError, match="; choose smaller pictures"):
        choose(EXAMPLE, settings, 100)
    assert choose(EXAMPLE, settings, 100, is_exact=False).micro_batch == 1
    assert choose(EXAMPLE, settings, None) == Plan(needed_bytes=EXAMPLE.total(Plan(), 4))


class Watcher(Observer):
    """Records how the task is carried out."""

    def __init__(self) -> None:
        self.scopes: list[str] = []
        self.plans: list[Plan] = []

    def scope_changed(self, task: Task) -> None:
        self.scopes.append(task.settings.scope)

    def plan_changed(self, plan: Plan) -> None:
        self.plans.append(plan)


def carried_out(task: Task, free: int, **options: Any) -> tuple[Watcher, UnlearnedModel]:
    watcher = Watcher()
    return watcher, unlearn(task, watcher, free=lambda _: free, **options)


def test_a_run_uses_and_reports_the_plan(
    sd_model: ModelHandle, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope that the user has chosen stays."""
    task = Task(sd_model, pairs, replace(SETTINGS, scope="xattn"), DRAWING)
    assert plan_for(sd_model, task.settings, "a cat", 0) == Plan(), "a small model"
    monkeypatch.setattr(fitting, "FULL_SIZE", 1)
    watcher, unlearned = carried_out(task, 0)
    (plan,) = watcher.plans
    assert plan.micro_batch == 1
    assert plan.needed_bytes is not None
    assert plan.available_bytes is not None
    assert plan.needed_bytes > plan.available_bytes > 0
    assert not plan.fits
    assert unlearned.cost.as_json()["memory_plan"] == plan.as_json()
    assert (watcher.scopes, unlearned.settings.scope) == ([], "xattn")


@pytest.fixture(scope="module")
def automatic(sd_model: ModelHandle, pairs: PromptPairs) -> Task:
    """A task with an automatic scope."""
    return Task(sd_model, pairs, LOW_RANK, DRAWING)


@pytest.fixture(scope="module")
def limits(automatic: Task) -> tuple[int, int]:
    """Free bytes with which only the smaller scope fits, and with which both fit."""
    assert automatic.smaller is not None
    both = [
        sizes(task.model, task.settings, "a cat", drawing=DRAWING)
        for task in (automatic.smaller, automatic)
    ]
    totals = [each.total(Plan(1), LOW_RANK.batch_size) for each in both]
    assert totals[0] < totals[1]
    small, large = (int(total * (1 + ERROR)) + 1 - both[0].model for total in totals)
    return small, large


def test_an_automatic_scope_becomes_smaller_before_anything_is_drawn(
    automatic: Task, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a run that has begun keeps its scope, however much memory there is later."""
    monkeypatch.setattr(fitting, "FULL_SIZE", 1)
    little, enough = limits
    file = tmp_path / "state.safetensors"
    resumption = Resumption(file, automatic.identity(), Progress())
    watcher, unlearned = carried_out(automatic, little, resumption=resumption, last_step=1)
    (plan,) = watcher.plans
    assert watcher.scopes == ["lora, cross-attention"]
    assert plan.fits
    assert str(plan).endswith(
        "Scope 'lora, cross-attention', because 'xattn' needs more than there is."
    )
    assert unlearned.settings == resolved(
        replace(LOW_RANK, scope="lora, cross-attention"), automatic.model, DRAWING.steps
    )
    assert unlearned.cost.memory_plan == plan.as_json()
    smaller = automatic.smaller
    assert smaller is not None
    assert stored_identity(file) == smaller.identity()
    resumption = Resumption(file, smaller.identity(), Progress())
    watcher, unlearned = carried_out(smaller, enough, resumption=resumption)
    assert (unlearned.resumed_at, watcher.scopes, watcher.plans) == (1, [], [plan])


def test_all_processes_train_the_smaller_scope_if_one_needs_it(
    automatic: Task, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "FULL_SIZE", 1)
    alone = engine._with_plan(automatic, True, lambda _: limits[1], Progress(), ALONE)
    assert (alone[0], alone[1].scope) == (automatic, None)
    monkeypatch.setattr(Processes, "sum_", lambda _, tensors: tensors[0].add_(1))
    chosen, plan = engine._with_plan(automatic, True, lambda _: limits[1], Progress(), ALONE)
    assert (chosen, plan.too_large) == (automatic.smaller, "xattn")


@pytest.mark.parametrize(
    ("changes", "smaller"),
    [
        ({}, "lora, cross-attention"),
        ({"scope": "xattn"}, None),
        ({"saliency": 0.5}, None),
        ({"method": UCE}, None),
    ],
    ids=str,
)
def test_only_an_automatic_scope_has_a_smaller_one(
    sd_model: ModelHandle, pairs: PromptPairs, changes: dict[str, Any], smaller: str | None
) -> None:
    """A saliency mask needs the model's own weights, and an edit no scope."""
    task = Task(sd_model, pairs, replace(SETTINGS, **changes), DRAWING)
    assert (task.smaller and task.smaller.settings.scope) == smaller


def limited(pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for the measurement of this number of pictures, and a model that counts as large."""

    def profile(
        model: ModelHandle, parameters: list[Tensor], rows: Conditioning, *_: object
    ) -> list[Section]:
        if len(rows) > pictures:
            raise torch.OutOfMemoryError("full")
        return [Section(10)]

    monkeypatch.setattr(fitting, "FULL_SIZE", 1)
    monkeypatch.setattr(estimate, "profile", profile)


@pytest.mark.parametrize("free", [None, 10**12])
def test_a_measurement_that_has_room_for_one_picture_chooses_single_pictures(
    sd_model: ModelHandle, monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    limited(1, monkeypatch)
    plan = plan_for(sd_model, resolved(SETTINGS, sd_model), "a cat", free)
    assert plan.micro_batch == 1


def test_a_measurement_without_room_for_one_picture_ends_the_run(
    sd_model: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(0, monkeypatch)
    settings = resolved(SETTINGS, sd_model)
    cure = "needs more memory than there is.*; choose scope 'lora, cross-attention' or smaller"
    with pytest.raises(TooLargeError, match=cure):
        plan_for(sd_model, settings, "a cat", None)
