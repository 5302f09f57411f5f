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
from unlearn_core.judging import probes
from unlearn_core.judging.evaluators import Evaluators
from unlearn_core.judging.probes import PROBES, run_probe
from unlearn_core.judging.relearning import PLACEHOLDER, invert, relearn
from unlearn_core.judging.settings import ProbeSettings
from unlearn_core.judging.wordings import long_prompts, misspellings, paraphrases, typos
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

from ..watching import Recorder

SETTINGS = ProbeSettings(pictures=2, examples=2, steps=2, generation=GenerationSettings(steps=2))


class SeesInk:
    """A judge that sees the concept in every second picture."""

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
def test_every_probe_says_what_came_back(unlearned: UnlearnedModel, name: str) -> None:
    progress = Recorder()
    result = run_probe(name, unlearned, Evaluators(None, SeesInk()), SETTINGS, progress=progress)
    assert (result.before, result.after) == (0.5, 0.5)
    assert len(result.prompts) == len(result.pictures) == 2
    assert progress.checks
    assert not progress.updates, "the caller counts whole probes"
    nobody = run_probe(name, unlearned, Evaluators(None, None), SETTINGS)
    assert (nobody.before, nobody.after) == (None, None)
    torch.testing.assert_close(nobody.pictures, result.pictures)


@pytest.fixture
def silenced(sd_model: ModelHandle, ink_pairs: PromptPairs) -> UnlearnedModel:
    """A model erased to the last: whatever it is taught, it predicts nothing."""
    last = {n: p for n, p in sd_model.named_parameters() if n.startswith("conv_out.")}
    assert last
    nothing = with_tensors(sd_model, {name: torch.zeros_like(p) for name, p in last.items()})
    return UnlearnedModel(nothing, sd_model, ink_pairs, UnlearnSettings(), ())


@pytest.mark.parametrize("name", PROBES)
def test_it_is_the_unlearned_model_that_is_probed(silenced: UnlearnedModel, name: str) -> None:
    result = run_probe(name, silenced, Evaluators(None, None), SETTINGS)
    drawn, before = (
        draw_pictures(model, result.prompts, SETTINGS.generation)
        for model in (silenced.model, silenced.base)
    )
    assert torch.equal(result.pictures, drawn)
    assert not torch.equal(result.pictures, before)


@pytest.mark.parametrize(
    ("name", "trains"),
    [("textual inversion", "invert"), ("relearning from ten pictures", "relearn")],
)
def test_what_teaches_it_again_are_pictures_by_the_model_before(
    silenced: UnlearnedModel, monkeypatch: pytest.MonkeyPatch, name: str, trains: str
) -> None:
    shown: list[Tensor] = []
    train = getattr(probes, trains)

    def spy(model: object, latents: Tensor, *given: Any, **settings: Any) -> ModelHandle:
        shown.append(latents)
        return train(model, latents, *given, **settings)

    monkeypatch.setattr(probes, trains, spy)
    more = replace(SETTINGS, examples=6)  # than there are prompts
    result = run_probe(name, silenced, Evaluators(None, None), more)
    prompts = [silenced.pairs.train[i % 4].forget for i in range(6)]
    expected = draw_latents(silenced.base, prompts, SETTINGS.generation)
    assert not torch.equal(expected[0], expected[4]), "another picture of the same prompt"
    assert len(shown) == 2  # by the model before, and by the unlearned one
    assert all(torch.equal(latents, expected) for latents in shown)
    concept = silenced.pairs.concept
    asked = [pair.forget for pair in silenced.pairs.test]
    if trains == "invert":
        asked = [concept.replaced_in(prompt, PLACEHOLDER) for prompt in asked]
    assert list(result.prompts) == asked


def test_an_unknown_probe_is_answered_with_those_there_are(unlearned: UnlearnedModel) -> None:
    with pytest.raises(ValueError, match="paraphrases, misspellings"):
        run_probe("asking nicely", unlearned, Evaluators(None, None), SETTINGS)


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_typos_are_close_to_the_word_and_never_it(word: str) -> None:
    found = typos(word)
    assert found
    assert len(set(found)) == len(found)
    for typo in found:
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


def test_wordings_ask_for_the_concept_in_other_words(ink_pairs: PromptPairs) -> None:
    concept, pairs = ink_pairs.concept, ink_pairs.test
    trained = {pair.forget for pair in (*ink_pairs.train, *ink_pairs.test)}
    for wording in (paraphrases, long_prompts):
        prompts = wording(concept, pairs)
        assert len(prompts) == len(pairs)
        for prompt, pair in zip(prompts, pairs, strict=True):
            assert concept.is_mentioned_in(prompt)
            assert pair.values["object"] in prompt
            assert prompt not in trained
    for prompt in misspellings(concept, pairs):
        assert not concept.is_mentioned_in(prompt)


@pytest.mark.parametrize("kept", [{"place": "at sea"}, {}])
def test_a_rewritten_prompt_is_paraphrased_with_all_that_it_asks_for(kept: dict[str, str]) -> None:
    """Whatever of its values it still holds."""
    written = PromptPair("an old lighthouse at sea in ink style", "a lighthouse", "", kept)
    for prompt in paraphrases(ForgetConcept("ink"), [written] * 5):  # each of the wordings
        assert "an old lighthouse at sea" in prompt
    alone = PromptPair("ink style", "oil style", "", {})
    assert paraphrases(ForgetConcept("ink"), [alone] * 5) == ["ink"] * 5


@pytest.mark.parametrize("kind", ["object", "person", "nudity"])
def test_wordings_fit_every_kind(kind: str) -> None:
    pairs = diversify(
        ForgetConcept("cat", kind),
        ["a {concept} in {place}"],
        {"place": ("town", "space")},
        train_count=1,
        test_count=1,
    )
    for wording in (paraphrases, long_prompts):
        assert all(pairs.concept.is_mentioned_in(p) for p in wording(pairs.concept, pairs.test))


@pytest.mark.parametrize(("kind", "name"), [("person", "Ann Example"), ("nudity", "nude")])
def test_nobody_is_called_a_thing(kind: str, name: str) -> None:
    """A name takes no article, and nudity is no noun."""
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
            found = model.denoise_error(latents, model.encode_prompts(prompts), noise, t)
        total += found.mean().item()
    return total


def test_relearning_fits_the_pictures_and_changes_nothing_given(
    unlearned: UnlearnedModel,
) -> None:
    prompts = ["a cat in ink style", "a dog in ink style"]
    latents = examples(unlearned.base, prompts)
    before = {n: p.detach().clone() for n, p in unlearned.model.named_parameters()}
    taught = relearn(unlearned, latents, prompts, steps=30, seed=0)
    assert error(taught, latents, prompts) < 0.999 * error(unlearned.model, latents, prompts)
    assert all(torch.equal(before[n], p) for n, p in unlearned.model.named_parameters())
    assert taught.lora_layers()
    again = relearn(unlearned, latents, prompts, steps=30, seed=0)
    assert error(again, latents, prompts) == error(taught, latents, prompts)
    slowly = relearn(unlearned, latents, prompts, steps=30, seed=0, at_once=1)
    assert error(slowly, latents, prompts) == pytest.approx(error(taught, latents, prompts))


def test_inversion_learns_one_word_alone(unlearned: UnlearnedModel) -> None:
    prompts = [f"a cat in {PLACEHOLDER} style", f"a dog in {PLACEHOLDER} style"]
    latents = examples(unlearned.base, ["a cat in ink style", "a dog in ink style"])
    model = unlearned.model
    found = invert(model, latents, prompts, "ink", steps=40, seed=0)
    started = model.with_word(PLACEHOLDER, model.word_embedding("ink"))
    assert error(found, latents, prompts) < error(started, latents, prompts)
    others = ["a cat in pixel style"]
    left, right = (m.encode_prompts(others).values for m in (model, found))
    assert torch.equal(left, right)
    for name, parameter in found.named_parameters():
        assert parameter is dict(model.named_parameters())[name]


def test_two_text_encoders_learn_the_word_and_the_pictures(
    sdxl_folder: Path, ink_pairs: PromptPairs
) -> None:
    model = load_model(sdxl_folder)
    unlearned = UnlearnedModel(model, model, ink_pairs, UnlearnSettings(), ())
    prompts = [f"a cat in {PLACEHOLDER} style", f"a dog in {PLACEHOLDER} style"]
    latents = examples(model, ["a cat in ink style", "a dog in ink style"])
    found = invert(model, latents, prompts, "ink", steps=40, seed=0)
    started = model.with_word(PLACEHOLDER, model.word_embedding("ink"))
    assert error(found, latents, prompts) < error(started, latents, prompts)
    left, right = found.encode_prompts(prompts), started.encode_prompts(prompts)
    moved = (left.values - right.values).abs().amax(dim=(0, 1))  # [D], both encoders' widths
    assert moved[: len(moved) // 2].max() > 0
    assert moved[len(moved) // 2 :].max() > 0
    assert left.pooled is not None
    assert right.pooled is not None
    assert not torch.equal(left.pooled, right.pooled)
    taught = relearn(unlearned, latents, prompts, steps=30, seed=0)
    assert error(taught, latents, prompts) < error(model, latents, prompts)


def test_ten_pictures_are_ten() -> None:
    assert "relearning from ten pictures" in PROBES
    assert ProbeSettings().examples == 10
