"""The nearest neighbours of a concept, on the demo model that draws them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unlearn_core.dataset.drawing import LatentCache, draw_latents
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.judging import neighbours
from unlearn_core.judging.clip_scorer import ClipScorer
from unlearn_core.judging.neighbours import nearest_neighbours
from unlearn_core.models.load import load_model
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify

from ..watching import Recorder

DEMO = Path(__file__).parents[3] / "demo" / "models" / "emoji-canvas"
STEPS = GenerationSettings(steps=6)


CAT = ForgetConcept("cat", "object")
PAIRS = diversify(
    CAT,
    ["a {concept} in {style} style on a white background"],
    {"style": ("noto", "twemoji", "fluent", "pixel")},
    train_count=4,
    test_count=1,
).train


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer.load(DEMO / "evaluation")


def test_nearest_is_what_clip_finds_most_alike_picture_by_picture(scorer: ClipScorer) -> None:
    model, words = load_model(DEMO), ["key", "crown", "pizza"]
    progress = Recorder()
    found = nearest_neighbours(model, CAT, words, PAIRS, scorer, STEPS, progress=progress)
    assert progress.updates[-1] == ("comparing", 16, 16)
    latents = {
        word: draw_latents(model, [p.forget.replace("cat", word) for p in PAIRS], STEPS)
        for word in ("cat", *words)
    }
    embedded = {word: scorer.embed_images(model.decode_latents(latents[word])) for word in latents}
    expected = {
        word: sum(float(a.dot(b)) for a, b in zip(embedded[word], embedded["cat"], strict=True)) / 4
        for word in words
    }
    assert [n.word for n in found] == sorted(words, key=lambda word: -expected[word])
    assert {n.word: n.similarity for n in found} == pytest.approx(expected, abs=1e-4)


def test_those_most_alike_join_the_replacements(scorer: ClipScorer, tmp_path: Path) -> None:
    model, cache = load_model(DEMO), LatentCache(tmp_path)
    words = ["key", "crown", "dog", "pizza"]
    owned = replace(CAT, replacements=("dog",))  # which is protected already
    grid = (["a {concept} in {style} style"], {"style": ("noto", "twemoji", "fluent", "pixel")})
    few = diversify(owned, *grid, train_count=neighbours.PICTURES, test_count=1, seed=3)
    ranked = nearest_neighbours(
        model,
        CAT,
        ["key", "crown", "pizza"],
        few.train,
        scorer,
        replace(STEPS, seed=3),
        cache=cache,
    )
    for count in (1, 2):
        found = neighbours.with_neighbours(
            model, owned, *grid, words, count, scorer, drawing=STEPS, seed=3, cache=cache
        )
        assert found.replacements == ("dog", *(n.word for n in ranked[:count]))
    with pytest.raises(ValueError, match="neighbours must be 3 or less, .* got 4"):
        neighbours.with_neighbours(model, owned, *grid, words, 4, scorer, drawing=STEPS)


@pytest.mark.parametrize("candidates", [[], ["dog", "Cat"], [" "]])
def test_bad_candidates_are_refused(candidates: list[str], scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="candidates: "):
        nearest_neighbours(load_model(DEMO), CAT, candidates, PAIRS, scorer, STEPS)
