"""The protection of retain prompts in the weights that read the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.prompt_products import Products
from unlearn_core.unlearning.settings import UnlearnSettings
from unlearn_core.unlearning.text_weights import MOST_GAIN, protection
from unlearn_core.unlearning.uce import RIDGE, products_for

SETTINGS = UnlearnSettings(
    steps=3, batch_size=4, learning_rate=1e-3, warm_start=False, prompt_protection=0.0
)


@pytest.fixture(scope="module")
def sets(sd_model: ModelHandle, pairs: PromptPairs) -> TrainingSets:
    return make_training_sets(sd_model, pairs, GenerationSettings(steps=2))


def random_products(generator: torch.Generator) -> tuple[Tensor, Tensor, Products]:
    concept = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    retained = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    products = Products(concept.T @ concept, concept.T @ concept, retained.T @ retained)
    return concept, retained, products


@pytest.mark.parametrize("weight", [0.5, 1.0, 20.0])
def test_it_solves_the_least_squares_problem(weight: float) -> None:
    concept, retained, products = random_products(torch.Generator().manual_seed(0))
    change = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.cat([concept, weight**0.5 * retained, RIDGE**0.5 * products.identity])
    targets = torch.cat([concept @ change.T, torch.zeros(len(retained) + 7, 3)])
    expected, *_ = np.linalg.lstsq(rows.numpy(), targets.numpy(), rcond=None)
    protected = change @ protection(products, weight)
    np.testing.assert_allclose(protected.T.numpy(), expected, atol=1e-10)


def test_it_never_enlarges_a_change_much() -> None:
    """Not even where the concept and what is retained are nearly the same."""
    retained = torch.randn(9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    concept = 1e3 * (retained + 1e-3 * torch.randn(9, 7, dtype=torch.float64))
    moments = concept.T @ concept
    matrix = protection(Products(moments, moments, 1e6 * retained[:6].T @ retained[:6]), 1.0)
    assert matrix.square().sum(0).mean().sqrt() <= MOST_GAIN


def changes(model: ModelHandle, base: ModelHandle) -> dict[str, Tensor]:
    before = dict(base.named_parameters())
    return {n: w.detach() - before[n] for n, w in model.changed_tensors().items()}


def harm(model: ModelHandle, base: ModelHandle, sets: TrainingSets) -> tuple[float, float]:
    """Root mean square of the change of the outputs, for the concept and the retain prompts."""
    products = products_for(base, sets.pairs, "to the end")
    sums = [0.0, 0.0]
    for name, text_input in base.text_projections().items():
        delta, of_input = changes(model, base)[name].double(), products[text_input]
        for i, moments in enumerate((of_input.edited, of_input.preserved)):
            sums[i] += torch.trace(delta @ moments @ delta.T).item()
    return sums[0] ** 0.5, sums[1] ** 0.5


def trained(base: ModelHandle, sets: TrainingSets, **fields: Any) -> ModelHandle:
    run = Unlearning(base, sets, replace(SETTINGS, **fields))
    list(run)
    return run.result().model


def test_steps_change_the_retain_prompts_less(sd_model: ModelHandle, sets: TrainingSets) -> None:
    plain, protected = (
        harm(trained(sd_model, sets, prompt_protection=weight), sd_model, sets)
        for weight in (0.0, 4.0)
    )
    assert protected[1] / protected[0] < 0.7 * plain[1] / plain[0]


def test_other_weights_are_trained_as_before(sd_model: ModelHandle, sets: TrainingSets) -> None:
    text = sd_model.text_projections()
    runs = [trained(sd_model, sets, prompt_protection=w, steps=1, restrict_step=False)
            for w in (0.0, 1.0)]  # fmt: skip
    plain, protected = (changes(model, sd_model) for model in runs)
    for name, change in plain.items():
        assert torch.equal(protected[name], change) == (name not in text), name


@pytest.mark.parametrize("fields", [{"saliency": 0.5}, {"scope": "lora"}, {"scope": "noxattn"}])
def test_it_has_no_effect_where_no_whole_text_weight_is_trained(
    sd_model: ModelHandle, sets: TrainingSets, fields: dict[str, Any]
) -> None:
    runs = [trained(sd_model, sets, prompt_protection=w, steps=2, **fields) for w in (0.0, 1.0)]
    plain, protected = ([t.detach() for t in model.own_tensors()] for model in runs)
    assert plain
    assert all(map(torch.equal, plain, protected))
