"""The nearest neighbours of a concept, with pictures from the demo model."""

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


def test_neighbours_are_ranked_by_the_similarity_of_single_pictures(scorer: ClipScorer) -> None:
    model, words = load_model(DEMO), ["key", "crown", "pizza"]
    progress = Recorder()
    ranking = nearest_neighbours(model, CAT, words, PAIRS, scorer, STEPS, progress=progress)
    assert progress.updates[-1] == ("comparing", 16, 16)
    latents = {
        word: draw_latents(model, [p.forget.replace("cat", word) for p in PAIRS], STEPS)
        for word in ("cat", *words)
    }
    vectors = {word: scorer.embed_images(model.decode_latents(latents[word])) for word in latents}
    expected = {
        word: sum(float(a.dot(b)) for a, b in zip(vectors[word], vectors["cat"], strict=True)) / 4
        for word in words
    }
    assert [n.word for n in ranking] == sorted(words, key=lambda word: -expected[word])
    assert {n.word: n.similarity for n in ranking} == pytest.approx(expected, abs=1e-4)


def test_the_nearest_candidates_are_added_to_the_replacements(
    scorer: ClipScorer, tmp_path: Path
) -> None:
    model, cache = load_model(DEMO), LatentCache(tmp_path)
    words = ["key", "crown", "dog", "pizza"]
    concept = replace(CAT, replacements=("dog",))  # preserved already, so not a candidate
    grid = (["a {concept} in {style} style"], {"style": ("noto", "twemoji", "fluent", "pixel")})
    pairs = diversify(concept, *grid, train_count=neighbours.PICTURES, test_count=1, seed=3)
    ranking = nearest_neighbours(
        model,
        CAT,
        ["key", "crown", "pizza"],
        pairs.train,
        scorer,
        replace(STEPS, seed=3),
        cache=cache,
    )
    for count in (1, 2):
        extended = neighbours.with_neighbours(
            model, concept, *grid, words, count, scorer, drawing=STEPS, seed=3, cache=cache
        )
        assert extended.replacements == ("dog", *(n.word for n in ranking[:count]))
    with pytest.raises(ValueError, match="neighbours must be 3 or less, got 4"):
        neighbours.with_neighbours(model, concept, *grid, words, 4, scorer, drawing=STEPS)


@pytest.mark.parametrize("candidates", [[], ["dog", "Cat"], [" "]])
def test_bad_candidates_are_refused(candidates: list[str], scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="candidates: "):
        nearest_neighbours(load_model(DEMO), CAT, candidates, PAIRS, scorer, STEPS)
