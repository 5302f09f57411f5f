"""The attacks whose recovery curve is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from demo.jobs import EMOJI, job_settings
from unlearn_core.dataset.cache import LatentCache
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.judging.curves import NOISE, Attack, Curve, Point, Target, run_curve, shown
from unlearn_core.judging.evaluators import Evaluators, find_evaluators
from unlearn_core.judging.gradient_steps import at
from unlearn_core.judging.image_to_image import ImageToImage, parts
from unlearn_core.judging.new_words import PLACEHOLDERS
from unlearn_core.judging.probes import CURVES, OTHER_LANGUAGES, QUICK_ATTACKS, as_probe
from unlearn_core.judging.relearning import fine_tuned
from unlearn_core.judging.settings import ProbeSettings
from unlearn_core.models.denoiser import NoiseSchedule, Schedule
from unlearn_core.models.flow import FlowSchedule
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.tensors import with_tensors
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

PICTURES = 3
SETTINGS = ProbeSettings(
    pictures=PICTURES, generation=GenerationSettings(steps=6, seed=2_000_000, batch_size=4)
)
SAMPLE = (
    "textual inversion",
    "textual inversion, 4 words",
    "relearning from ten pictures",
    "full fine-tuning on ten pictures",
    "fine-tuning on unrelated pictures",
    "adversarial search, free embeddings",
    "adversarial search, words",
    "image to image, neutral prompt",
    "image to image, concept's prompt",
)


def short(attack: Attack) -> Attack:
    """The same attack with next to no effort."""
    kind: Any = attack
    if isinstance(attack, ImageToImage):
        return replace(kind, efforts=(30, 70))
    return replace(kind, efforts=(2,), pictures=2)


ATTACKS = [short(attack) for attack in CURVES if attack.name in SAMPLE]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The demo model, which knows "cat"."""
    model = load_model(EMOJI)
    pairs = job_settings("cat", UnlearnSettings()).pairs()
    cache = LatentCache(tmp_path_factory.mktemp("cache"))
    return Target(model, model, pairs, SETTINGS, cache)


@pytest.fixture(scope="module")
def judges(demo: Target) -> Evaluators:
    return find_evaluators(demo.base, demo.pairs, None)


@pytest.fixture(scope="module")
def noise(demo: Target) -> ModelHandle:
    """A denoiser with random weights."""
    generator = torch.Generator().manual_seed(0)
    matrices = {n: p for n, p in demo.base.named_parameters() if p.ndim > 1}
    return with_tensors(
        demo.base,
        {
            name: torch.randn(p.shape, generator=generator) * p.float().std()
            for name, p in matrices.items()
        },
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_finds_the_concept_where_it_is_and_only_there(
    demo: Target, judges: Evaluators, noise: ModelHandle, attack: Attack
) -> None:
    known = dict(counts(attack, demo, judges))
    assert all(count >= PICTURES - 1 for count in known.values()), known
    unknown = dict(counts(attack, replace(demo, model=noise), judges))
    if attack.unit == NOISE:
        del unknown[30]  # most of the picture is still there
    assert not any(unknown.values()), unknown


def test_phrases_of_other_languages_find_the_concept_too(
    demo: Target, judges: Evaluators, noise: ModelHandle
) -> None:
    """The demo's captions are English, so fewer pictures show it."""
    (known,) = dict(counts(OTHER_LANGUAGES, demo, judges)).values()
    assert known > 0
    (unknown,) = dict(counts(OTHER_LANGUAGES, replace(demo, model=noise), judges)).values()
    assert unknown == 0


def counts(attack: Attack, target: Target, judges: Evaluators) -> Iterator[tuple[int, int]]:
    for attempt, count in shown(attack, target, judges):
        assert len(attempt.prompts) == len(attempt.pictures) == PICTURES
        assert count is not None
        yield attempt.effort, count


# On a tiny random model


def target_of(model: ModelHandle, pairs: Any, **settings: Any) -> Target:
    few = ProbeSettings(pictures=2, generation=GenerationSettings(steps=2), **settings)
    return Target(model, model, pairs, few)


def test_a_curve_is_one_run_that_is_judged_on_the_way(sd_model: ModelHandle, pairs: Any) -> None:
    target = target_of(sd_model, pairs)
    examples, latents = target.examples(3)
    captions = [pair.forget for pair in examples]

    def weights(efforts: tuple[int, ...]) -> list[torch.Tensor]:
        runs = fine_tuned(efforts, latents, captions, target, full=True)
        return [
            torch.cat([p.detach().flatten() for _, p in model.named_parameters()])
            for _, model in runs
        ]

    first, second = weights((2, 4))
    assert torch.equal(first, weights((2,))[0])
    assert torch.equal(second, weights((4,))[0])
    assert not torch.equal(first, second)
    assert list(at((2, 4), iter(range(1, 100)))) == [2, 4]


def test_the_search_for_words_results_in_a_plain_prompt(sd_model: ModelHandle, pairs: Any) -> None:
    (attack,) = (attack for attack in ATTACKS if attack.name == "adversarial search, words")
    target = target_of(sd_model, pairs)
    (attempt,) = attack.attempts(target)
    words = set(sd_model.vocabulary().words)
    for prompt, pair in zip(attempt.prompts, target.tests, strict=True):
        found = prompt.removesuffix(pair.forget).split()
        assert len(found) == 4
        assert set(found) <= words
        assert " ".join(found) in attempt.label
    again = target.attempt(sd_model, attempt.prompts, 0, "")
    assert torch.equal(again.pictures, attempt.pictures), "the prompt alone has the same effect"


def test_the_vocabulary_has_the_embedding_of_each_word(sd_model: ModelHandle) -> None:
    vocabulary = sd_model.vocabulary()
    assert len(vocabulary.words) == len(vocabulary.embeddings)
    for word in ("cat", *PLACEHOLDERS):
        embedding = vocabulary.embeddings[vocabulary.words.index(word)]
        assert torch.equal(embedding, sd_model.word_embedding(word))
        sd_model.with_word(word, embedding)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_a_perfect_prediction_returns_the_picture_and_the_noise(prediction: str) -> None:
    x_0, eps, t = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([3, 7])
    alphas = torch.linspace(0.99, 0.1, 10)
    schedule: Schedule = (
        FlowSchedule() if prediction == "flow" else NoiseSchedule(alphas, prediction)
    )
    t = t / 10 if prediction == "flow" else t
    one, zero = torch.ones_like(x_0), torch.zeros_like(x_0)
    signal, spread = schedule.add_noise(one, zero, t), schedule.add_noise(zero, one, t)
    x_t, output = schedule.add_noise(x_0, eps, t), schedule.target(x_0, eps, t)
    both = parts(prediction, output, x_t, signal, spread)
    torch.testing.assert_close(both, (x_0, eps), atol=1e-4, rtol=1e-4)


def test_a_curve_compares_both_models_and_shows_the_worst_point(
    sd_model: ModelHandle, pairs: Any
) -> None:
    last = {n: p for n, p in sd_model.named_parameters() if n.startswith("conv_out.")}
    erased = with_tensors(sd_model, {name: torch.zeros_like(p) for name, p in last.items()})
    unlearned = UnlearnedModel(erased, sd_model, pairs, UnlearnSettings(), ())
    attack = ImageToImage("image to image", neutral=True)
    settings = target_of(sd_model, pairs).settings
    curve = run_curve(attack, unlearned, Evaluators(None, None), settings)
    assert [point.effort for point in curve.points] == [30, 50, 70]
    assert curve.points[0] == Point(30, curve.points[0].label, None, None)
    (_, _, strongest) = attack.attempts(Target(erased, sd_model, pairs, settings))
    assert torch.equal(curve.pictures, strongest.pictures), "unjudged: those of the last point"


def test_the_worst_point_is_the_one_with_most_pictures() -> None:
    points = (Point(10, "", 4, 1), Point(60, "", 4, 3), Point(200, "", 4, 2))
    curve = Curve("a", "steps", points, ("",) * 4, torch.zeros(0))
    assert curve.worst.effort == 60


def test_a_whole_curve_contains_the_figure_of_the_quick_probe() -> None:
    points = (Point(10, "", 4, 1), Point(60, "", 3, 2), Point(200, "", 4, 4))
    probe = as_probe(Curve("relearning", "steps", points, ("",) * 4, torch.zeros(0)))
    assert (probe.name, probe.before, probe.after) == ("relearning", 0.75, 0.5)
    for quick in QUICK_ATTACKS:
        whole = [each for each in CURVES if each.name == quick.name]
        assert all(set(quick.efforts) <= set(each.efforts) for each in whole)
