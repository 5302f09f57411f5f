"""Settings that are chosen for the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.auto import (
    LOW_RANK_LAYERS,
    OTHERS,
    REFERENCE_SIZE,
    WARM,
    WARM_LOW_RANK,
    Numbers,
    resolved,
    typical_size,
)
from unlearn_core.unlearning.recipes import RECIPES, from_recipe
from unlearn_core.unlearning.settings import EFFORTS, NORMAL, UnlearnSettings

NUMBERS = ("steps", "learning_rate", "batch_size", "picture_pairs", "picture_steps")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_number_has_a_value_for_every_recipe(sd_model: ModelHandle, recipe: str) -> None:
    settings = resolved(from_recipe(recipe), sd_model)
    assert all(getattr(settings, name) > 0 for name in NUMBERS)
    assert resolved(settings, sd_model) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 7), ("learning_rate", 1e-5), ("batch_size", 3), ("picture_pairs", 5),
     ("picture_steps", 2), ("scope", "lora")],
)  # fmt: skip
def test_a_chosen_value_is_never_changed(
    sd_model: ModelHandle, name: str, value: float | str
) -> None:
    assert getattr(resolved(UnlearnSettings(**{name: value}), sd_model), name) == value  # pyright: ignore[reportArgumentType]


def test_training_pictures_need_half_the_sampling_steps(sd_model: ModelHandle) -> None:
    steps = [resolved(UnlearnSettings(), sd_model, n).picture_steps for n in (2, 5, 12, 20)]
    assert steps == [2, 4, 6, 10]


def test_the_learning_rate_is_proportional_to_the_size_of_the_weights(
    sd_model: ModelHandle,
) -> None:
    size = typical_size(sd_model, "xattn")
    weights = dict(sd_model.named_parameters())
    fresh = []
    for name in sd_model.parameters_in("xattn"):
        if weights[name].ndim > 1:
            layer = torch.nn.Linear(weights[name].shape[1], weights[name].shape[0])
            fresh.append(layer.weight.detach().flatten())
    assert torch.cat(fresh).square().mean().sqrt().item() == pytest.approx(size, rel=0.05)
    rate = resolved(UnlearnSettings(), sd_model).learning_rate
    assert rate == pytest.approx(WARM[NORMAL].learning_rate * size / REFERENCE_SIZE, rel=0.05)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize(
    ("fields", "numbers"),
    [({}, WARM), ({"scope": "lora"}, WARM_LOW_RANK), ({"warm_start": False}, OTHERS),
     ({"scope": "lora", "warm_start": False}, LOW_RANK_LAYERS),
     ({"scope": "noxattn"}, OTHERS), ({"objective": "ascent"}, OTHERS)],
)  # fmt: skip
def test_few_steps_suffice_after_a_warm_start(
    sd_model: ModelHandle, fields: dict[str, Any], numbers: dict[str, Numbers], effort: str
) -> None:
    settings = resolved(UnlearnSettings(**fields, effort=effort), sd_model)
    values = settings.steps, settings.batch_size, settings.picture_pairs
    expected = numbers[effort]
    assert values == (expected.steps, expected.batch_size, expected.picture_pairs)


def test_more_effort_is_more_work(sd_model: ModelHandle) -> None:
    each = [resolved(UnlearnSettings(effort=effort), sd_model, 12) for effort in EFFORTS]
    rows = [settings.steps * settings.batch_size for settings in each]
    pictures = [settings.picture_pairs * settings.picture_steps for settings in each]
    assert rows == sorted(rows)
    assert pictures == sorted(pictures)


def test_a_model_without_text_has_no_warm_start(class_folder: Path) -> None:
    assert resolved(UnlearnSettings(), load_model(class_folder)).steps == OTHERS[NORMAL].steps
