"""Two concepts in one run, in prompts, pictures, figures and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unlearn_core.dataset.previews import PreviewPrompts
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.job.settings_file import read_settings
from unlearn_core.judging.settings import EvaluationSettings
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs, together
from unlearn_core.reporting.grids import comparison_grid
from unlearn_core.reporting.report import report_json, summary, table
from unlearn_core.saving.metadata import checkpoint_metadata
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.objectives import ERASE
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

from ..embeddings import embeddings
from ..watching import Recorder

DRAWING = GenerationSettings(steps=2)


def pairs_of(
    name: str, *replacements: str, place: tuple[str, ...] = ("town", "sea")
) -> PromptPairs:
    concept = ForgetConcept(name, "object", (), replacements)
    return diversify(
        concept, ["a {concept} in {place}"], {"place": place}, train_count=3, test_count=2
    )


@pytest.fixture
def both() -> PromptPairs:
    return together(pairs_of("cat", "fox"), pairs_of("dog", "fox"))


def test_together_preserves_every_concept(both: PromptPairs) -> None:
    assert [part.concept.name for part in both.each] == ["cat", "dog"]
    three = together(both, pairs_of("bird", "fox"))
    assert [part.concept.name for part in three.each] == ["cat", "dog", "bird"]
    assert all(not part.also for part in three.also)
    other_way = together(pairs_of("bird", "fox"), both)
    assert [part.concept.name for part in other_way.each] == ["bird", "cat", "dog"]


def test_a_concept_may_not_preserve_what_another_forgets() -> None:
    with pytest.raises(ValueError, match=r"'a dog in \w+' mentions 'dog', .* of 'cat'"):
        together(pairs_of("cat", "dog"), pairs_of("dog", "fox"))
    with pytest.raises(ValueError, match="'dog', which is also to be forgotten"):
        together(pairs_of("dog", "fox"), pairs_of("cat", "fox", place=("dog town", "sea")))
    with pytest.raises(ValueError, match="'cat' mentions 'cat', which is also to be forgotten"):
        together(pairs_of("cat", "fox"), pairs_of("cat", "dog"))


def test_a_run_uses_the_pictures_of_both(sd_model: ModelHandle, both: PromptPairs) -> None:
    sets = make_training_sets(sd_model, both, DRAWING)
    (part,) = sets.paired
    assert len(part.forget) == len(part.retain) == 6
    alone = make_training_sets(sd_model, pairs_of("cat", "fox"), DRAWING)
    assert (part.forget.latents[:3] == alone.paired[0].forget.latents).all()
    run = Unlearning(sd_model, sets, UnlearnSettings(steps=1, batch_size=2))
    assert len(list(run)) == 1
    result = run.result()

    progress = Recorder()
    report = evaluate(result, EvaluationSettings(2, DRAWING, probes="wordings"), progress=progress)
    counts = progress.counts("evaluating")
    assert counts == sorted(counts)
    assert counts[-1] == 24
    assert progress.updates[-1] == ("probing", 6, 6)
    assert [part.concept.name for part in report.each] == ["cat", "dog"]
    assert "cat" in report.comparisons["forget"].prompts[0]
    assert "dog" in report.also[0].comparisons["forget"].prompts[0]
    for part, name in zip(report.each, ("cat", "dog"), strict=True):
        of_words = {probe.name: probe.prompts for probe in part.probes}
        assert all(name in prompt for prompt in of_words["paraphrases"] + of_words["long prompts"])
    for text in (summary(report), table(report)):
        assert "cat" in text
        assert "dog" in text
    assert comparison_grid(report).height > 1.9 * comparison_grid(report.also[0]).height

    content = json.loads(json.dumps(report_json(result, report)))
    assert content["concept"]["name"] == "cat"
    assert [part["concept"]["name"] for part in content["also"]] == ["dog"]
    assert content["also"][0]["after"]["pictures"] == 2
    unevaluated = report_json(result, None)
    assert unevaluated["also"][0]["after"] is None
    metadata = checkpoint_metadata(result, content, "title", {}, {})("0" * 64)
    assert "'cat' and 'dog'" in metadata["modelspec.description"]
    assert summary(report).splitlines()[-1] in metadata["modelspec.description"]
    assert "dog" in metadata["unlearn.also"]
    assert metadata["modelspec.resolution"] == "16x16"
    original = {"modelspec.resolution": "1024x1024"}
    metadata = checkpoint_metadata(result, content, "title", original, {})("0" * 64)
    assert metadata["modelspec.resolution"] == "1024x1024", "the original takes precedence"


def test_esd_pushes_each_row_away_from_its_own_concepts_name(
    sd_model: ModelHandle, both: PromptPairs
) -> None:
    sets = make_training_sets(sd_model, both, DRAWING)
    names = embeddings(sd_model.encode_prompts(["cat", "dog"])).values
    batches = Unlearning(sd_model, sets, UnlearnSettings(objective=ERASE, batch_size=6)).batches
    (batch,) = batches.every_forget_row()
    assert batch.bare_names is not None
    assert torch.equal(embeddings(batch.bare_names).values, names[[0, 0, 0, 1, 1, 1]])
    prompts = [pair.forget for part in both.each for pair in part.train]
    assert torch.equal(
        embeddings(batch.conditioning).values, embeddings(sd_model.encode_prompts(prompts)).values
    )


@pytest.mark.parametrize("method", [UCE, "restricted gradient"])
def test_the_closed_form_edit_covers_every_concept(
    sd_model: ModelHandle, both: PromptPairs, method: str
) -> None:
    """Alone and as a warm start."""
    sets = make_training_sets(sd_model, both, DRAWING)
    run = begin(sd_model, sets, UnlearnSettings(method=method, retain_weight=0.01))
    before = dict(sd_model.named_parameters())
    edited = run.result().model.changed_tensors()
    assert edited
    for part in both.each:
        forget, retain = (
            embeddings(sd_model.encode_prompts([getattr(pair, side) for pair in part.train])).values
            for side in ("forget", "retain")
        )
        for name, weight in edited.items():
            target = retain @ before[name].detach().T
            distance = (forget @ before[name].detach().T - target).norm()
            assert (forget @ weight.T - target).norm() < 0.6 * distance, (part.concept.name, name)


def test_previews_show_each_in_turn(both: PromptPairs) -> None:
    previews = PreviewPrompts.of(both, DRAWING)
    assert previews.forget_count == 3
    assert [("cat" in p, "dog" in p) for p in previews.prompts[:3]] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip
    four = together(together(both, pairs_of("bird", "fox")), pairs_of("cow", "fox"))
    assert PreviewPrompts.of(four, DRAWING).forget_count == 4


def test_a_settings_file_can_contain_further_concepts(tmp_path: Path) -> None:
    save_file({}, tmp_path / "model.safetensors")
    file = tmp_path / "settings.json"
    prompts = {"templates": ["a {concept} in {place}"], "dimensions": {"place": ["town", "sea"]}}
    content = {
        "model": "model.safetensors",
        "concept": {"name": "yak", "kind": "object", "replacements": ["fox"]},
        "prompts": prompts,
        "also": [{"concept": {"name": "Van Gogh", "kind": "style", "replacements": ["Monet"]}}],
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    pairs = read_settings(file).pairs()
    assert [part.concept.name for part in pairs.each] == ["yak", "Van Gogh"]
    assert "subject" in pairs.also[0].dimensions  # the preset for styles

    for also, message in (
        ({}, "also must be a list"),
        ([{}], r"also\[0\]: 'concept' is missing"),
        ([{"concept": {"name": "x"}, "weight": 2}], r"also\[0\]: unknown field 'weight'"),
        ([{"concept": {"name": "x", "colour": 2}}], r"also\[0\].concept: unknown field 'colour'"),
    ):
        file.write_text(json.dumps({**content, "also": also}), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_settings(file)
