"""A run that cannot work is refused when its settings are created."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.layers import SCOPES
from unlearn_core.models.options import LoadOptions
from unlearn_core.unlearning.objectives import OBJECTIVES
from unlearn_core.unlearning.rules import RULES
from unlearn_core.unlearning.settings import UnlearnSettings

NAN, INF = float("nan"), float("inf")

BAD: list[tuple[type, str, object]] = [
    *((GenerationSettings, "steps", value) for value in (0, -1, 1.5, NAN)),
    *((GenerationSettings, "batch_size", value) for value in (0, -3, 2.5)),
    *((GenerationSettings, "seed", value) for value in (-1, 2**64, 0.5)),
    *((GenerationSettings, "guidance_scale", value) for value in (0, -1.0, NAN, INF)),
    *((UnlearnSettings, "method", value) for value in ("", "PCGrad", "Restricted Gradient")),
    *((UnlearnSettings, "objective", value) for value in ("", "descent")),
    *((UnlearnSettings, "scope", value) for value in ("", "lora9", "FULL")),
    *((UnlearnSettings, "lora_rank", value) for value in (0, -1, 1.5)),
    *((UnlearnSettings, "lora_alpha", value) for value in (0.0, -1.0, NAN, INF)),
    *((UnlearnSettings, "steps", value) for value in (-5, 1.5, NAN)),
    *((UnlearnSettings, "batch_size", value) for value in (-1, 1.5)),
    *((UnlearnSettings, "picture_pairs", value) for value in (-1, 1.5)),
    *((UnlearnSettings, "picture_steps", value) for value in (-1, 1.5)),
    *((UnlearnSettings, "retain_batch_factor", value) for value in (-1, 1.5)),
    *(
        (UnlearnSettings, field, value)
        for field in (
            "paired",
            "diversified",
            "stratified_timesteps",
            "restrict_step",
            "warm_start",
            "harden",
        )
        for value in (1, "")
    ),
    *((UnlearnSettings, "retain_ema", value) for value in (-0.1, 1.0, NAN)),
    *((UnlearnSettings, "empty_share", value) for value in (-0.1, 1.0, NAN)),
    *((UnlearnSettings, "weight_decay", value) for value in (-0.1, NAN, INF)),
    *((UnlearnSettings, "saliency", value) for value in (0.0, 1.1, NAN)),
    *((UnlearnSettings, "npo_beta", value) for value in (0.0, -0.1, NAN, INF)),
    *((UnlearnSettings, "seed", value) for value in (-1, 2**64, 0.5)),
    *((UnlearnSettings, "learning_rate", value) for value in (-1e-9, -1, 1.5, NAN, INF)),
    *((UnlearnSettings, "truncation", value) for value in (0.0, -0.1, NAN, INF)),
    *((UnlearnSettings, "retain_weight", value) for value in (-0.1, NAN, INF)),
    *((UnlearnSettings, "warm_start_weight", value) for value in (-0.1, NAN, INF)),
    *((UnlearnSettings, "prompt_protection", value) for value in (-0.1, NAN, INF)),
    (UnlearnSettings, "effort", "none"),
    *((UnlearnSettings, "negative_guidance", value) for value in (-0.1, NAN, INF)),
    *((UnlearnSettings, "uce_tokens", value) for value in ("", "first token")),
    *((UnlearnSettings, "schedule", value) for value in ("", "cosine")),
    *((UnlearnSettings, "retain_objective", value) for value in ("", "keep")),
    *((EvaluationSettings, "pictures", value) for value in (0, -1, 1.5)),
    *((EvaluationSettings, "scorer", value) for value in (5, ("a",))),
    *((EvaluationSettings, "probes", value) for value in ("", "some", True)),
]


@pytest.mark.parametrize(("settings", "field", "value"), BAD)
def test_the_error_names_the_field_and_the_bad_value(
    settings: type, field: str, value: object
) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must be ") as caught:
        settings(**{field: value})
    assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (settings, field)
        for settings in (GenerationSettings, UnlearnSettings, EvaluationSettings, LoadOptions)
        for field in dataclasses.fields(settings)
        if field.name != "generation"
    ],
    ids=lambda value: value.name if isinstance(value, dataclasses.Field) else value.__name__,
)
def test_the_error_names_a_value_of_the_wrong_type(
    settings: type, field: dataclasses.Field[Any]
) -> None:
    """A settings file may contain any JSON."""
    wrong: list[object] = [{}, ["a"], {"a": 1}]
    if field.type in ("int", "float"):
        wrong += ["1e-3", True, None]
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{field.name} must be ") as caught:
            settings(**{field.name: value})
        assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize("settings", [GenerationSettings, UnlearnSettings, EvaluationSettings])
def test_every_field_refuses_some_value(settings: type) -> None:
    """Fails for a new field without a check."""
    checked = {field for owner, field, _ in BAD if owner is settings}
    without_check = {"generation"}
    assert {f.name for f in dataclasses.fields(settings)} - without_check == checked


@pytest.mark.parametrize("settings", [GenerationSettings, UnlearnSettings, EvaluationSettings])
def test_the_defaults_are_valid_and_frozen(settings: type) -> None:
    defaults = settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        defaults.steps = 3


def test_the_bounds_of_every_range_are_allowed() -> None:
    UnlearnSettings(
        steps=1, batch_size=1, retain_batch_factor=1, retain_weight=0, seed=2**63,
        learning_rate=1e-12, truncation=1e-6,
    )  # fmt: skip
    GenerationSettings(steps=1, batch_size=1, seed=0, guidance_scale=1)
    for method in RULES:
        assert UnlearnSettings(method=method).method == method
    for objective in OBJECTIVES:
        assert UnlearnSettings(objective=objective).objective == objective
    for scope in SCOPES:
        assert UnlearnSettings(scope=scope).scope == scope


def test_a_saliency_mask_is_refused_with_settings_that_it_cannot_mask() -> None:
    for other in ({"weight_decay": 0.1}, {"scope": "lora"}):
        with pytest.raises(ValueError, match="saliency must be 1 with"):
            UnlearnSettings(saliency=0.5, **other)  # pyright: ignore[reportArgumentType]


def test_the_error_for_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'restricted gradient', 'GradDiff'"):
        UnlearnSettings(method="SalUn")
