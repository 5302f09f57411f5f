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
from unlearn_core.unlearning.uce import RIDGE, edits, products_for

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


@pytest.mark.parametrize("fields", [{"saliency": 0.5}, {"scope": "noxattn"}])
def test_it_has_no_effect_where_no_whole_text_weight_is_trained(
    sd_model: ModelHandle, sets: TrainingSets, fields: dict[str, Any]
) -> None:
    runs = [trained(sd_model, sets, prompt_protection=w, steps=2, **fields) for w in (0.0, 1.0)]
    plain, protected = ([t.detach() for t in model.own_tensors()] for model in runs)
    assert plain
    assert all(map(torch.equal, plain, protected))


LOW_RANK = {"scope": "lora, cross-attention", "lora_rank": 4, "lora_alpha": 2.0}


def test_a_low_rank_layer_begins_with_the_largest_part_of_the_edit(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    """The best approximation of its rank, by an independent SVD."""
    settings = replace(SETTINGS, warm_start=True, prompt_protection=1.0, **LOW_RANK)
    run = Unlearning(sd_model, sets, settings)
    changed = run.result().model.changed_tensors()
    before = dict(sd_model.named_parameters())
    edited = edits(sd_model, sets.pairs, settings.warm_start_weight, settings.uce_tokens)
    for name, weight in edited.items():
        u, s, vh = np.linalg.svd((weight - before[name].double()).detach().numpy())
        best = (u[:, :4] * s[:4]) @ vh[:4]
        actual = (changed[name] - before[name]).detach().numpy()
        np.testing.assert_allclose(actual, best, atol=1e-3 * np.abs(best).max())


def test_rows_of_down_keep_their_usual_size(sd_model: ModelHandle, sets: TrainingSets) -> None:
    runs = [Unlearning(sd_model, sets, replace(SETTINGS, warm_start=warm, **LOW_RANK))
            for warm in (True, False)]  # fmt: skip
    text = [name.removesuffix(".weight") for name in sd_model.text_projections()]
    warm, plain = (
        torch.cat([run.result().model.lora_layers()[name].down.norm(dim=1) for name in text])
        for run in runs
    )
    sizes = [norms.square().mean().sqrt().item() for norms in (warm, plain)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize("warm", [False, True])
def test_steps_of_low_rank_layers_change_the_retain_prompts_less(
    sd_model: ModelHandle, sets: TrainingSets, warm: bool
) -> None:
    """Compared with the start: without protection and with it, the same steps."""

    def ratio(weight: float) -> float:
        settings = replace(SETTINGS, warm_start=warm, prompt_protection=weight, **LOW_RANK)
        run = Unlearning(sd_model, sets, settings)
        text = sd_model.text_projections()

        def weights() -> dict[str, Tensor]:
            changed = run.result().model.changed_tensors()
            own = dict(sd_model.named_parameters())
            return {n: changed.get(n, own[n]).detach().double().clone() for n in text}

        before = weights()
        list(run)
        products = products_for(sd_model, sets.pairs, "to the end")
        sums = [0.0, 0.0]
        for name, after in weights().items():
            delta = after - before[name]
            of_input = products[text[name]]
            for i, moments in enumerate((of_input.edited, of_input.preserved)):
                sums[i] += torch.trace(delta @ moments @ delta.T).item()
        return (sums[1] / sums[0]) ** 0.5

    assert ratio(4.0) < 0.8 * ratio(0.0)


def test_without_an_edit_a_low_rank_layer_has_no_effect(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    run = Unlearning(sd_model, sets, replace(SETTINGS, prompt_protection=1.0, **LOW_RANK))
    assert not run.result().model.changed_tensors()
