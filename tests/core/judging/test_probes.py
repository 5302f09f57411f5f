"""The recovery probes, on a real tiny model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearn_core.dataset.drawing import draw_latents, draw_pictures
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.judging.curves import Target
from unlearn_core.judging.evaluators import Evaluators
from unlearn_core.judging.new_words import PLACEHOLDERS, learned
from unlearn_core.judging.probes import PROBES, run_probe
from unlearn_core.judging.relearning import fine_tuned
from unlearn_core.judging.settings import ProbeSettings
from unlearn_core.judging.wordings import (
    long_prompts,
    misspellings,
    other_languages,
    paraphrases,
    typos,
)
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.tensors import with_tensors
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPair, PromptPairs
from unlearn_core.prompts.presets import PRESETS
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

from ..embeddings import embeddings
from ..watching import Recorder

SETTINGS = ProbeSettings(pictures=2, examples=2, steps=2, generation=GenerationSettings(steps=2))


class SeesInk:
    """A judge that finds the concept in every second picture."""

    def __init__(self) -> None:
        self.dimensions: Mapping[str, Sequence[str]] = {"style": ("ink",)}

    def classify(self, images: Tensor) -> dict[str, list[str | None]]:
        return {"style": ["ink" if i % 2 == 0 else None for i in range(len(images))]}


@pytest.fixture(scope="module")
def ink_pairs() -> PromptPairs:
    return diversify(
        ForgetConcept("ink", "style", ("inky",), ("pixel",)),
        ["a {object} in {concept} style"],
        {"object": ("cat", "dog", "fish", "bird")},
        train_count=4,
        test_count=2,
    )


@pytest.fixture(params=["xattn", "lora"])
def unlearned(
    request: pytest.FixtureRequest,
    sd_model: ModelHandle,
    sets: TrainingSets,
    ink_pairs: PromptPairs,
) -> UnlearnedModel:
    run = Unlearning(sd_model, sets, UnlearnSettings(scope=request.param, steps=1, batch_size=2))
    list(run)
    return replace(run.result(), pairs=ink_pairs)


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_counts_pictures_with_the_concept(unlearned: UnlearnedModel, name: str) -> None:
    progress = Recorder()
    result = run_probe(name, unlearned, Evaluators(None, SeesInk()), SETTINGS, progress=progress)
    assert (result.before, result.after) == (0.5, 0.5)
    assert len(result.prompts) == len(result.pictures) == 2
    assert progress.checks
    assert not progress.updates, "the caller counts whole probes"
    unjudged = run_probe(name, unlearned, Evaluators(None, None), SETTINGS)
    assert (unjudged.before, unjudged.after) == (None, None)
    torch.testing.assert_close(unjudged.pictures, result.pictures)


@pytest.fixture
def erased_model(sd_model: ModelHandle, ink_pairs: PromptPairs) -> UnlearnedModel:
    """A completely erased model: it predicts zeros, even after training."""
    last = {n: p for n, p in sd_model.named_parameters() if n.startswith("conv_out.")}
    assert last
    erased = with_tensors(sd_model, {name: torch.zeros_like(p) for name, p in last.items()})
    return UnlearnedModel(erased, sd_model, ink_pairs, UnlearnSettings(), ())


@pytest.mark.parametrize("name", PROBES)
def test_the_unlearned_model_is_probed(erased_model: UnlearnedModel, name: str) -> None:
    result = run_probe(name, erased_model, Evaluators(None, None), SETTINGS)
    after, before = (
        draw_pictures(model, result.prompts, SETTINGS.generation)
        for model in (erased_model.model, erased_model.base)
    )
    assert torch.equal(result.pictures, after)
    assert not torch.equal(result.pictures, before)


@pytest.mark.parametrize("name", ["textual inversion", "relearning from ten pictures"])
def test_training_probes_use_pictures_of_the_model_before_unlearning(
    erased_model: UnlearnedModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    examples_used: list[Tensor] = []
    examples = Target.examples

    def spy(target: Target, count: int, *, retain: bool = False) -> Any:
        pairs, latents = examples(target, count, retain=retain)
        examples_used.append(latents)
        return pairs, latents

    monkeypatch.setattr(Target, "examples", spy)
    more = replace(SETTINGS, examples=6)  # more than prompts
    result = run_probe(name, erased_model, Evaluators(None, None), more)
    prompts = [erased_model.pairs.train[i % 4].forget for i in range(6)]
    expected = draw_latents(erased_model.base, prompts, SETTINGS.generation)
    assert not torch.equal(expected[0], expected[4]), "another picture of the same prompt"
    assert len(examples_used) == 2  # for the model before and for the unlearned one
    assert all(torch.equal(latents, expected) for latents in examples_used)
    concept = erased_model.pairs.concept
    prompts = [pair.forget for pair in erased_model.pairs.test]
    if name == "textual inversion":
        prompts = [concept.replaced_in(prompt, PLACEHOLDERS[0]) for prompt in prompts]
    assert list(result.prompts) == prompts


def test_an_unknown_probe_is_refused_with_a_list_of_probes(unlearned: UnlearnedModel) -> None:
    with pytest.raises(ValueError, match="paraphrases, misspellings"):
        run_probe("asking nicely", unlearned, Evaluators(None, None), SETTINGS)


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_typos_are_close_to_the_word_and_differ_from_it(word: str) -> None:
    misspelled = typos(word)
    assert misspelled
    assert len(set(misspelled)) == len(misspelled)
    for typo in misspelled:
        assert typo.lower() != word.lower()
        assert abs(len(typo) - len(word)) <= max(1, len(word) if len(word) == 1 else 1)


def test_a_name_of_two_words_is_misspelled_too() -> None:
    pairs = diversify(
        ForgetConcept("Van Gogh", "style", (), ("Monet",)),
        ["a {object} by {concept}"],
        {"object": tuple("abcdefgh")},
        train_count=6,
        test_count=2,
    )
    prompts = misspellings(pairs.concept, pairs.train)
    assert not any(pairs.concept.is_mentioned_in(prompt) for prompt in prompts)
    assert all("Van " in prompt for prompt in prompts)
    assert len(set(typos("Gogh"))) > 3


def test_rewordings_mention_the_concept_in_new_prompts(ink_pairs: PromptPairs) -> None:
    concept, pairs = ink_pairs.concept, ink_pairs.test
    known = {pair.forget for pair in (*ink_pairs.train, *ink_pairs.test)}
    for wording in (paraphrases, long_prompts, other_languages):
        prompts = wording(concept, pairs)
        assert len(prompts) == len(pairs)
        for prompt, pair in zip(prompts, pairs, strict=True):
            assert concept.is_mentioned_in(prompt)
            assert pair.values["object"] in prompt
            assert prompt not in known
    for prompt in misspellings(concept, pairs):
        assert not concept.is_mentioned_in(prompt)


@pytest.mark.parametrize("values", [{"place": "at sea"}, {}])
def test_an_edited_prompt_is_paraphrased_completely(values: dict[str, str]) -> None:
    """Also the words that are not values of a dimension."""
    edited = PromptPair("an old lighthouse at sea in ink style", "a lighthouse", "", values)
    for prompt in paraphrases(ForgetConcept("ink"), [edited] * 5):  # one per paraphrase
        assert "an old lighthouse at sea" in prompt
    alone = PromptPair("ink style", "oil style", "", {})
    assert paraphrases(ForgetConcept("ink"), [alone] * 5) == ["ink"] * 5


@pytest.mark.parametrize("kind", ["object", "person", "nudity"])
def test_rewordings_suit_every_kind(kind: str) -> None:
    pairs = diversify(
        ForgetConcept("cat", kind),
        ["a {concept} in {place}"],
        {"place": ("town", "space")},
        train_count=1,
        test_count=1,
    )
    for wording in (paraphrases, long_prompts, other_languages):
        assert all(pairs.concept.is_mentioned_in(p) for p in wording(pairs.concept, pairs.test))


@pytest.mark.parametrize(("kind", "name"), [("person", "Ann Example"), ("nudity", "nude")])
def test_names_and_nudity_get_no_article(kind: str, name: str) -> None:
    """A person's name takes no article, and "nude" is an adjective."""
    preset = PRESETS[kind]
    pairs = diversify(
        ForgetConcept(name, kind),
        preset.templates,
        preset.dimensions,
        train_count=1,
        test_count=30,
    )
    for prompt in paraphrases(pairs.concept, pairs.test):
        assert not re.search(rf"\b(an?|the|one|with) {name}", prompt)
        assert f"{name} of" not in prompt


def examples(model: ModelHandle, prompts: list[str]) -> Tensor:
    return draw_latents(model, prompts, GenerationSettings(steps=2))


def error(model: ModelHandle, latents: Tensor, prompts: list[str]) -> float:
    generator = torch.Generator().manual_seed(9)
    total = 0.0
    for _ in range(8):
        noise = torch.randn(latents.shape, generator=generator)
        t = model.times(torch.rand(len(latents), generator=generator))
        with torch.no_grad():
            errors = model.denoise_error(latents, model.encode_prompts(prompts), noise, t)
        total += errors.mean().item()
    return total


def relearned(unlearned: UnlearnedModel, latents: Tensor, at_once: int = 16) -> ModelHandle:
    target = attacked(unlearned, at_once)
    ((_, model),) = fine_tuned((30,), latents, RELEARNED, target, full=False)
    return model


def attacked(unlearned: UnlearnedModel, at_once: int = 16) -> Target:
    settings = ProbeSettings(generation=GenerationSettings(seed=0, batch_size=at_once))
    return Target(unlearned.model, unlearned.base, unlearned.pairs, settings)


def inverted(unlearned: UnlearnedModel, latents: Tensor, steps: int) -> ModelHandle:
    start = unlearned.model.word_embedding("ink").unsqueeze(0)
    ((_, model),) = learned((steps,), start, latents, OF_NEW_WORD, attacked(unlearned))
    return model


RELEARNED = ["a cat in ink style", "a dog in ink style"]
OF_NEW_WORD = ["a cat in sks style", "a dog in sks style"]


def test_relearning_fits_the_pictures_and_leaves_its_input_unchanged(
    unlearned: UnlearnedModel,
) -> None:
    latents = examples(unlearned.base, RELEARNED)
    before = {n: p.detach().clone() for n, p in unlearned.model.named_parameters()}
    model = relearned(unlearned, latents)
    fitted = error(model, latents, RELEARNED)
    assert fitted < 0.999 * error(unlearned.model, latents, RELEARNED)
    assert all(torch.equal(before[n], p) for n, p in unlearned.model.named_parameters())
    assert model.lora_layers()
    assert error(relearned(unlearned, latents), latents, RELEARNED) == fitted
    in_parts = relearned(unlearned, latents, at_once=1)
    assert error(in_parts, latents, RELEARNED) == pytest.approx(fitted)


def test_inversion_changes_one_word_only(unlearned: UnlearnedModel) -> None:
    latents = examples(unlearned.base, RELEARNED)
    model = unlearned.model
    trained = inverted(unlearned, latents, steps=40)
    initial = model.with_word("sks", model.word_embedding("ink"))
    assert error(trained, latents, OF_NEW_WORD) < error(initial, latents, OF_NEW_WORD)
    others = ["a cat in pixel style"]
    left, right = (embeddings(m.encode_prompts(others)).values for m in (model, trained))
    assert torch.equal(left, right)
    for name, parameter in trained.named_parameters():
        assert parameter is dict(model.named_parameters())[name]


def test_both_text_encoders_are_trained(sdxl_folder: Path, ink_pairs: PromptPairs) -> None:
    model = load_model(sdxl_folder)
    unlearned = UnlearnedModel(model, model, ink_pairs, UnlearnSettings(), ())
    latents = examples(model, RELEARNED)
    trained = inverted(unlearned, latents, steps=4)
    initial = model.with_word("sks", model.word_embedding("ink"))
    # Whether it fits is tested with one encoder: in this random model a word hardly matters.
    left, right = (embeddings(m.encode_prompts(OF_NEW_WORD)) for m in (trained, initial))
    change = (left.values - right.values).abs().amax(dim=(0, 1))  # [D], both encoders' widths
    assert change[: len(change) // 2].max() > 0
    assert change[len(change) // 2 :].max() > 0
    assert left.pooled is not None
    assert right.pooled is not None
    assert not torch.equal(left.pooled, right.pooled)
    model_again = relearned(unlearned, latents)
    assert error(model_again, latents, RELEARNED) < error(model, latents, RELEARNED)


def test_relearning_from_ten_pictures_uses_ten() -> None:
    assert "relearning from ten pictures" in PROBES
    assert ProbeSettings().examples == 10
