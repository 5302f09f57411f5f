"""UCE against its normal equations, on a real tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning import prompt_products
from unlearn_core.unlearning import uce as closed_form
from unlearn_core.unlearning.closed_form import ClosedForm
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.prompt_products import _before_shared_end, _last_token
from unlearn_core.unlearning.settings import LAST_TOKEN, UCE, UCE_TOKENS, UnlearnSettings
from unlearn_core.unlearning.text_weights import protection
from unlearn_core.unlearning.uce import RIDGE

from ..embeddings import embeddings
from ..watching import Recorder

SETTINGS = UnlearnSettings(method=UCE, retain_weight=2.0)


def outputs(model: ModelHandle, name: str, tokens: torch.Tensor) -> torch.Tensor:
    return tokens @ dict(model.named_parameters())[name].T


def test_it_changes_only_keys_and_values(sd_model: ModelHandle, sets: TrainingSets) -> None:
    progress, pairs = Recorder(), len(sets.pairs.train)
    run = begin(sd_model, sets, SETTINGS, progress)
    assert progress.updates[-1] == ("first edit", pairs, pairs)
    assert isinstance(run, ClosedForm)
    assert list(run) == []
    result = run.result()
    assert result.reports == ()
    changed = set(result.model.changed_tensors())
    assert changed
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in changed)
    assert sd_model.changed_tensors() == {}


@pytest.mark.parametrize("tokens", UCE_TOKENS)
def test_the_edit_minimises_the_papers_sum(
    sd_model: ModelHandle, sd_folder: Path, sets: TrainingSets, tokens: str
) -> None:
    """The paper's sum, written out token by token: to the end of the prompt, or only for the
    concept's last token."""
    result = begin(sd_model, sets, replace(SETTINGS, uce_tokens=tokens)).result()
    name = next(iter(result.model.changed_tensors()))
    before = dict(sd_model.named_parameters())[name].detach().double()
    after = dict(result.model.named_parameters())[name].detach().double()
    (part,) = sets.paired
    forget = embeddings(part.forget.conditioning).values.double()
    retain = embeddings(part.retain.conditioning).values.double()

    tokenizer = CLIPTokenizer.from_pretrained(sd_folder / "tokenizer")
    ends = [len(tokenizer(pair.retain)["input_ids"]) - 2 for pair in sets.pairs.train]

    def cost(weight: torch.Tensor) -> torch.Tensor:
        total = RIDGE * (weight - before).square().sum()
        for f, r, end in zip(forget, retain, ends, strict=True):
            differs = [bool((a - b).abs().max() > 1e-4) for a, b in zip(f, r, strict=True)]
            first = differs.index(True)
            if tokens == LAST_TOKEN:  # the concept is one token here, and so is its replacement
                total = total + (f[first] @ weight.T - r[first] @ before.T).square().sum()
                total = total + 2.0 * (r[end] @ weight.T - r[end] @ before.T).square().sum()
                continue
            total = total + (f[first:] @ weight.T - r[first:] @ before.T).square().sum()
            total = total + 2.0 * (r @ weight.T - r @ before.T).square().sum()
        return total

    weight = after.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(weight), weight)
    start = before.clone().requires_grad_()
    (gradient_before,) = torch.autograd.grad(cost(start), start)
    assert gradient.norm() < 1e-3 * gradient_before.norm()
    assert cost(after) < cost(before)


def test_the_concepts_prompts_act_like_their_parallels_afterwards(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    result = begin(sd_model, sets, replace(SETTINGS, retain_weight=0.01)).result()
    (part,) = sets.paired
    forget, retain = (
        embeddings(part.forget.conditioning).values,
        embeddings(part.retain.conditioning).values,
    )
    for name in result.model.changed_tensors():
        target = outputs(sd_model, name, retain)
        before = (outputs(sd_model, name, forget) - target).norm()
        assert (outputs(result.model, name, forget) - target).norm() < 0.5 * before


@pytest.mark.parametrize("tokens", UCE_TOKENS)
def test_many_pairs_are_summed_in_parts(
    sd_model: ModelHandle, sets: TrainingSets, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    whole = closed_form.edits(sd_model, sets.pairs, 2.0, tokens)
    monkeypatch.setattr(prompt_products, "ENCODED_AT_ONCE", 2)
    parts = closed_form.edits(sd_model, sets.pairs, 2.0, tokens)
    heavier = closed_form.edits(sd_model, sets.pairs, 20.0, tokens)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(heavier[name], weight, rtol=1e-3, atol=1e-5)


def test_equal_prompts_need_no_edit(sd_model: ModelHandle, sets: TrainingSets) -> None:
    train = tuple(replace(pair, forget=pair.retain) for pair in sets.pairs.train)
    same = replace(sets, pairs=replace(sets.pairs, train=train))
    assert len(begin(sd_model, same, SETTINGS).result().model.changed_tensors()) == 0


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        ("a cat indoors", "a catamaran of glass indoors"),
        ("a catamaran of glass indoors", "a cat indoors"),
        ("a house, catlike, at night", "a house, dog, at night"),
        ("a cat", "a catamaran"),
        ("cat house", "house"),
    ],
)
def test_the_last_token_is_found_for_words_of_any_length(
    sd_model: ModelHandle, sd_folder: Path, forget: str, retain: str
) -> None:
    """Positions from the tokenizer against positions from the embeddings."""
    tokenizer = CLIPTokenizer.from_pretrained(sd_folder / "tokenizer")
    left, right = (tokenizer(text)["input_ids"][1:-1] for text in (forget, retain))
    shared = 0
    while shared < min(len(left), len(right)) and left[-1 - shared] == right[-1 - shared]:
        shared += 1
    words = _before_shared_end(forget, retain)
    positions = _last_token(sd_model, words)
    expected = [len(left) - shared, len(right) - shared]  # after the start token
    if all(words):
        assert positions[0] - positions[1] == expected[0] - expected[1]
        assert len(tokenizer(words[0])["input_ids"]) - 2 == positions[0]
    else:
        assert positions == expected


@pytest.mark.parametrize(("scope", "weight"), [("full", 4.0), ("xattn", 4.0), ("xattn", 0.5)])
def test_a_run_can_start_from_the_edit(
    sd_model: ModelHandle, sets: TrainingSets, scope: str, weight: float
) -> None:
    before = {name: p.detach().clone() for name, p in sd_model.named_parameters()}
    settings = UnlearnSettings(scope=scope, warm_start_weight=weight)
    warm = Unlearning(sd_model, sets, settings).result()
    edited = begin(sd_model, sets, replace(SETTINGS, retain_weight=weight)).result()
    actual, expected = warm.model.changed_tensors(), edited.model.changed_tensors()
    assert actual.keys() == expected.keys() != set()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert all(torch.equal(p, before[name]) for name, p in sd_model.named_parameters())
    cold = Unlearning(sd_model, sets, UnlearnSettings(scope=scope, warm_start=False)).result()
    assert cold.model.changed_tensors() == {}


@pytest.mark.parametrize("settings", [{"scope": "noxattn"}, {"scope": "lora"}, {"saliency": 0.5}])
def test_the_warm_start_leaves_frozen_weights_unchanged(
    sd_model: ModelHandle, sets: TrainingSets, settings: dict[str, Any]
) -> None:
    run = Unlearning(sd_model, sets, UnlearnSettings(**settings))
    before = dict(sd_model.named_parameters())
    for name, parameter in run.result().model.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name])


def test_a_run_without_cross_attention_starts_from_the_unchanged_model(
    class_folder: Path, pairs: PromptPairs
) -> None:
    model = load_model(class_folder)
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    run = Unlearning(model, sets, UnlearnSettings(scope="full", batch_size=2, steps=1))
    assert run.result().model.changed_tensors() == {}
    assert len(list(run)) == 1


def test_a_model_without_cross_attention_is_refused(class_folder: Path, pairs: PromptPairs) -> None:
    model = load_model(class_folder)
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    with pytest.raises(
        ValueError, match="method 'UCE .* needs .*cross-attention.*; choose another"
    ):
        begin(model, sets, SETTINGS)


def test_an_ill_conditioned_edit_is_refused() -> None:
    """Rounding would decide its result."""
    matrix = torch.eye(4, dtype=torch.float64)
    products = prompt_products.Products(matrix, matrix, matrix)
    with pytest.raises(ValueError, match=r"is ill-conditioned .* lower retain_weight"):
        closed_form.change(products, 1e15)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    """The search for a ridge must end, too."""
    matrix = torch.eye(4, dtype=torch.float64)
    products = prompt_products.Products(matrix, matrix, matrix * value)
    with pytest.raises(ValueError, match="is ill-conditioned"):
        closed_form.change(products, 1.0)
    with pytest.raises(ValueError, match="is ill-conditioned"):
        protection(products, 1.0)


def test_an_edit_beyond_the_range_of_the_weights_is_refused(sd_model: ModelHandle) -> None:
    names = closed_form.edited_names(sd_model)
    columns = {i: dict(sd_model.named_parameters())[n].shape[1] for n, i in names.items()}
    matrices = {i: torch.eye(n, dtype=torch.float64) * 1e60 for i, n in columns.items()}
    with pytest.raises(ValueError, match=r"gives infinity in tensor '.*attn2.*weight'"):
        closed_form.edited_weights(sd_model, matrices)
