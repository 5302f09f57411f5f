"""The evaluation's figures, compared with cases computed by hand, and their presentation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearn_core.dataset.drawing import draw_pictures
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.evaluation.bootstrap import wilson
from unlearn_core.evaluation.comparing import Side, build_report, nearest_words
from unlearn_core.evaluation.distance import cmmd
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.evaluation.results import AlignmentReport, Comparison
from unlearn_core.foundation.cost import Cost
from unlearn_core.foundation.pixels import as_floats
from unlearn_core.judging import probes
from unlearn_core.judging.clip_scorer import ClipScorer
from unlearn_core.judging.curves import Curve, Point
from unlearn_core.judging.evaluators import Evaluators, Observations, find_evaluators, find_scorer
from unlearn_core.judging.image_to_image import ImageToImage
from unlearn_core.judging.judge import ConvJudge, ZeroShotJudge
from unlearn_core.judging.probes import REWORDINGS
from unlearn_core.judging.relearning import FineTuning
from unlearn_core.judging.settings import EvaluationSettings, ProbeSettings
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPair
from unlearn_core.reporting.grids import before_after, comparison_grid
from unlearn_core.reporting.groups import groups
from unlearn_core.reporting.report import report_json, summary, table
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

from ..watching import Recorder

DEMO = Path(__file__).resolve().parents[3] / "demo" / "models" / "emoji-canvas"
INK = ForgetConcept("ink", "style", (), ("noto", "pixel"))
RED, BLUE = (255, 0, 0), (0, 0, 255)


class ReadsPixels:
    """A judge of pictures that encode their content: pixel (0, 0, 0) is an index of ``shows``."""

    def __init__(self, shows: list[tuple[str | None, str | None]]) -> None:
        self.shows = shows
        self.dimensions: Mapping[str, Sequence[str]] = {
            "style": [style for style, _ in shows if style],
            "object": [thing for _, thing in shows if thing],
        }

    def classify(self, images: Tensor) -> dict[str, list[str | None]]:
        seen = [self.shows[round(image[0, 0, 0].item() * 255)] for image in images]
        return {"style": [s for s, _ in seen], "object": [o for _, o in seen]}


def pictures(*indices: int) -> Tensor:
    return torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def pair(replacement: str, thing: str) -> PromptPair:
    return PromptPair(f"ink {thing}", f"{replacement} {thing}", replacement, {"object": thing})


JUDGE = ReadsPixels([("ink", "cat"), ("noto", "cat"), ("pixel", "dog"), (None, None)])
TEST, TRAIN = [pair("noto", "cat"), pair("pixel", "dog")] * 2, [pair("noto", "cat")] * 4
PAIRS = {"forget": TEST, "retain train": TRAIN, "retain test": TEST}
AFTER = pictures(
    *(0, 1, 3, 2),  # forget: ink cat; noto cat instead of a dog; nothing; pixel dog
    *(1, 1, 1, 0),  # retain train: three correct; ink instead of noto
    *(1, 2, 3, 1),  # retain test: correct, correct, nothing, noto cat instead of pixel dog
)


def make_report(*, scorer: ClipScorer | None = None) -> AlignmentReport:
    """The report on correct pictures before and ``AFTER`` after."""
    prompts = [
        pair.forget if name == "forget" else pair.retain
        for name, group in PAIRS.items()
        for pair in group
    ]
    evaluators = Evaluators(scorer, JUDGE)
    before = pictures(*(0, 0, 0, 0), *(1, 1, 1, 1), *(1, 2, 1, 2))
    sides = [Side(p, evaluators.look(INK, p, prompts)) for p in (before, AFTER)]
    return build_report(INK, PAIRS, prompts, sides[0], sides[1], evaluators)


def test_shares_are_counted_as_defined() -> None:
    metrics = make_report().after
    assert metrics.concept_shown == 1
    assert metrics.unlearning_accuracy == 3 / 4
    assert metrics.in_domain_retain == 5 / 8
    assert metrics.cross_domain_retain == 6 / 8
    assert metrics.cross_domain_forget == 2 / 4
    assert metrics.alignment_forget is None
    assert metrics.pictures == 4


def test_every_figure_has_its_interval() -> None:
    intervals = make_report().intervals
    assert intervals["unlearning_accuracy"] == wilson(3, 4)
    assert intervals["in_domain_retain"] == wilson(5, 8)
    assert "alignment_forget" not in intervals


def test_facts_of_each_picture() -> None:
    comparisons = make_report().comparisons
    forget = comparisons["forget"].facts
    assert [facts.shows_before for facts in forget] == [True] * 4
    assert [facts.shows_after for facts in forget] == [True, False, False, False]
    retain = comparisons["retain train"].facts
    assert [facts.shows_after for facts in retain] == [False, False, False, True]
    assert {facts.replacement for facts in retain} == {"noto"}
    assert all(facts.change is None for facts in retain)


@pytest.fixture(scope="module")
def unlearned(sd_model: ModelHandle, sets: TrainingSets) -> UnlearnedModel:
    run = Unlearning(sd_model, sets, UnlearnSettings(steps=3, batch_size=2))
    assert len(list(run)) == 3
    return run.result()


@pytest.fixture(scope="module")
def report(unlearned: UnlearnedModel) -> AlignmentReport:
    settings = EvaluationSettings(pictures=3, generation=GenerationSettings(steps=2, seed=50))
    return evaluate(unlearned, settings)


def test_both_models_draw_the_same_prompts(report: AlignmentReport) -> None:
    for comparison in report.comparisons.values():
        assert len(comparison.prompts) == len(comparison.before) == len(comparison.after) == 3
        assert comparison.before.dtype == comparison.after.dtype == torch.uint8
        assert len(comparison.facts) == 3


def test_an_unchanged_model_scores_the_same_after(
    unlearned: UnlearnedModel,
) -> None:
    same = UnlearnedModel(
        unlearned.base, unlearned.base, unlearned.pairs, unlearned.settings, unlearned.reports
    )
    settings = EvaluationSettings(pictures=2, generation=GenerationSettings(steps=2))
    progress = Recorder()
    report = evaluate(same, settings, progress=progress)
    assert report.before == report.after
    assert progress.updates[-1] == ("evaluating", 12, 12)
    counts = progress.counts("evaluating")
    assert counts == sorted(counts)
    comparison = report.comparisons["forget"]
    assert torch.equal(comparison.before, comparison.after)


def test_the_report_is_json_and_the_summary_claims_only_tested_facts(
    unlearned: UnlearnedModel, report: AlignmentReport
) -> None:
    content = report_json(unlearned, report, Cost({"unlearning": 1.234}))
    assert json.loads(json.dumps(content, allow_nan=False)).keys() == content.keys()
    assert content["seconds"] == {"unlearning": 1.23}
    broken = replace(unlearned, reports=(replace(unlearned.reports[0], forget_loss=math.nan),))
    (step,) = report_json(broken, report)["steps"]
    assert step["forget_loss"] is None
    assert step["retain_loss"] == unlearned.reports[0].retain_loss
    assert "look at the pictures" in summary(report)
    computed_by_hand = make_report()
    text = summary(computed_by_hand)
    assert "'ink' is in 1 of 4 pictures prompted for it; before unlearning, in 4." in text
    low, high = (round(100 * end) for end in (wilson(1, 4).low, wilson(1, 4).high))
    assert f"{low} to {high} % (95 % interval)" in text
    assert (
        "Not tested: paraphrases, misspellings, long prompts, textual inversion, relearning" in text
    )
    assert "0.750" in table(computed_by_hand)
    assert "removed" not in text + table(computed_by_hand)


def test_before_and_after_are_not_swapped() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    probe = Curve("paraphrases", "", (Point(0, "", 3, 1),), ("ink",) * 4, images)
    report = replace(make_report(), curves=(probe,))
    assert report.before == replace(
        report.after,
        unlearning_accuracy=0.0,
        in_domain_retain=1.0,
        cross_domain_retain=1.0,
        cross_domain_forget=0.5,  # ink cats instead of dogs
        concept_shown=4,
    )
    rows = {line[:40].strip(): line.split()[-5:-3] for line in table(report).splitlines()}
    assert rows["concept absent (UA)"] == ["0.000", "0.750"]
    assert rows["alternatives kept (IRA)"] == ["1.000", "0.625"]
    assert rows["content kept (CRA)"] == ["1.000", "0.750"]
    text = summary(report)
    assert re.search(r"alternatives are correct in 62.5 % \([^)]*\), before 100 %", text)
    assert re.search(r"other content is correct in 75 % \([^)]*\), before 100 %", text)
    assert "paraphrases 1 of 4 (before 3)" in text


def test_the_picture_before_is_above_the_one_after() -> None:
    before, after = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    before[:, 0], after[:, 2] = 1, 1  # red, blue
    pixels = np.asarray(before_after(["a cat"], before, after).convert("RGB")).astype(int)
    red, blue = ((pixels == colour).all(2).any(1).nonzero()[0] for colour in (RED, BLUE))
    assert red.max() < blue.min()


def test_neighbours_are_determined_from_the_pictures_before() -> None:
    """The pictures after unlearning do not matter."""
    far, near = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])

    def side(like_ink: str) -> Side:
        similar = [p.replacement == like_ink for p in (*TRAIN, *TEST)]
        embeddings = torch.stack([near] * 4 + [near if alike else far for alike in similar])
        return Side(AFTER, Observations({}, embeddings, None, None, len(AFTER)))

    report = build_report(
        INK, PAIRS, ["x"] * 12, side("pixel"), side("noto"), Evaluators(None, JUDGE)
    )
    assert report.neighbours == ("pixel",)


def test_an_alternative_that_the_judge_does_not_know_is_not_judged() -> None:
    """Such as a made-up name, which has no style of its own."""
    invented = {
        name: [replace(p, replacement="xqz") if i == 0 else p for i, p in enumerate(group)]
        for name, group in PAIRS.items()
    }
    side = Side(AFTER, Evaluators(None, JUDGE).look(INK, AFTER, ["x"] * 12))
    metrics = build_report(INK, invented, ["x"] * 12, side, side, Evaluators(None, JUDGE)).after
    assert metrics.in_domain_retain == 3 / 6  # each group's first was correct


def test_values_of_the_concepts_own_kind_do_not_count_as_other_content() -> None:
    """A judge cannot distinguish "a cat next to a dog" from "a dog next to a cat"."""
    beside = {
        name: [replace(p, values={**p.values, "style": "oil"}) for p in group]
        for name, group in PAIRS.items()
    }
    side = Side(AFTER, Evaluators(None, JUDGE).look(INK, AFTER, ["x"] * 12))
    metrics = build_report(INK, beside, ["x"] * 12, side, side, Evaluators(None, JUDGE)).after
    assert metrics == make_report().after


def test_each_group_has_prompts_of_its_own(
    unlearned: UnlearnedModel, report: AlignmentReport
) -> None:
    pairs = unlearned.pairs
    prompts = {name: set(part.prompts) for name, part in report.comparisons.items()}
    assert prompts["forget"] <= {p.forget for p in pairs.test}
    assert prompts["retain train"] <= {p.retain for p in pairs.train}
    assert prompts["retain test"] <= {p.retain for p in pairs.test}
    assert not prompts["retain train"] & prompts["retain test"]


def test_grids_contain_every_prompt(report: AlignmentReport, unlearned: UnlearnedModel) -> None:
    comparison: Comparison = report.comparisons["forget"]
    before, after = as_floats(comparison.before), as_floats(comparison.after)
    one = before_after(comparison.prompts[:1], before[:1], after[:1])
    three = before_after(comparison.prompts, before, after)
    assert three.width > 2 * one.width
    assert comparison_grid(report).height > 3 * three.height


def test_judge_survives_saving(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = ConvJudge({"style": ("noto", "ink")}, 64).eval()
    judge.save(tmp_path)
    loaded = ConvJudge.load(tmp_path)
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(
        judge(images)["style"], loaded(images)["style"], rtol=0.02, atol=0.02
    )
    assert loaded.dimensions == judge.dimensions


# With CLIP


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer.load(DEMO / "evaluation")


def test_alignment_and_change_are_cosines(scorer: ClipScorer) -> None:
    report = make_report(scorer=scorer)
    comparison = report.comparisons["retain test"]
    vectors = [scorer.embed_images(as_floats(p)) for p in (comparison.before, comparison.after)]
    texts = scorer.embed_texts(comparison.prompts)
    aligned = [(side * texts).sum(1).tolist() for side in vectors]
    assert [facts.alignment_before for facts in comparison.facts] == pytest.approx(aligned[0])
    assert [facts.alignment_after for facts in comparison.facts] == pytest.approx(aligned[1])
    changes = (1 - (vectors[0] * vectors[1]).sum(1)).clamp(min=0).tolist()
    assert [facts.change for facts in comparison.facts] == pytest.approx(changes, abs=1e-5)
    assert report.after.alignment_retain_test == pytest.approx(sum(aligned[1]) / 4, abs=1e-5)
    change = report.alignment_change["alignment_retain_test"]
    assert change.mean == pytest.approx((sum(aligned[1]) - sum(aligned[0])) / 4, abs=1e-5)
    assert change.interval.low <= change.mean <= change.interval.high
    all_changes = [
        f.change for n in ("retain train", "retain test") for f in report.comparisons[n].facts
    ]
    assert report.picture_change is not None
    mean = sum(change for change in all_changes if change) / 8
    assert report.picture_change.mean == pytest.approx(mean, abs=1e-5)


def test_the_distance_is_between_retain_pictures(scorer: ClipScorer) -> None:
    report = make_report(scorer=scorer)
    before, after = (
        torch.cat(
            [
                scorer.embed_images(as_floats(getattr(report.comparisons[name], side)))
                for name in ("retain train", "retain test")
            ]
        )
        for side in ("before", "after")
    )
    assert report.retain_distance == pytest.approx(cmmd(before, after), abs=1e-4)


def test_an_embedding_does_not_depend_on_the_other_pictures(scorer: ClipScorer) -> None:
    images = torch.rand(70, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together = scorer.embed_images(images)
    assert together.shape == (70, 64)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(70))
    torch.testing.assert_close(together[65:], scorer.embed_images(images[65:]))


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        (ForgetConcept("Ink"), [True, False, False]),
        (ForgetConcept("sumi", synonyms=("ink",)), [True, False, False]),
        (ForgetConcept("cat", "object"), None),
    ],
)
def test_a_concept_is_recognized_by_any_of_its_words(
    concept: ForgetConcept, expected: list[bool] | None
) -> None:
    observations = Observations({"style": ["ink", "oil", None]}, None, None, None, 3)
    assert observations.shows(concept) == expected


def test_a_judge_that_does_not_know_the_concept_is_not_used() -> None:
    """It would never find the concept, neither before nor after: a perfect score."""
    words = {"object": ("cat", "dog")}
    pairs = diversify(INK, ["a {object} in {concept}"], words, train_count=1, test_count=1)
    demo = load_model(DEMO)
    scorer = find_scorer(demo)
    assert isinstance(find_evaluators(demo, pairs, scorer).judge, ConvJudge)
    for changes in ({"name": "black ink"}, {"kind": "object"}):
        other = replace(pairs, concept=replace(pairs.concept, **changes))
        assert isinstance(find_evaluators(demo, other, scorer).judge, ZeroShotJudge)
        without_scorer = find_evaluators(demo, other, None)
        assert without_scorer.judge is None
        assert any("own judge does not know" in text for text in without_scorer.missing)


def test_limits_of_the_models_own_judge_are_reported() -> None:
    demo = load_model(DEMO)
    known = {"object": ("cat", "dog")}
    for concept, words, expected in (
        (INK, known, []),
        (INK, {"subject": ("cat", "dog")}, ["Other content is not judged"]),
        (replace(INK, replacements=("Monet",)), known, ["Alternatives are not judged"]),
    ):
        (name,) = words
        template = f"a {{{name}}} in {{concept}}"
        pairs = diversify(concept, [template], words, train_count=1, test_count=1)
        missing = find_evaluators(demo, pairs, find_scorer(demo)).missing
        assert [sentence.split(":")[0] for sentence in missing] == expected


def test_clip_judges_a_model_without_its_own_judge(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    pairs = sets.pairs
    assert find_scorer(sd_model) is None
    chosen = find_scorer(sd_model, DEMO / "evaluation")
    evaluators = find_evaluators(sd_model, pairs, chosen)
    assert isinstance(evaluators.judge, ZeroShotJudge)
    assert evaluators.judge.dimensions["object"] == ("cat", "dog", "house")
    images = torch.rand(3, 3, 16, 16)
    embeddings = evaluators.judge.scorer.embed_images(images)
    assert evaluators.judge.classify(images) == evaluators.judge.classify_embeddings(embeddings)
    assert evaluators.missing == ()
    without_scorer = find_evaluators(sd_model, pairs, None)
    assert (without_scorer.scorer, without_scorer.judge) == (None, None)
    assert "choose an open_clip model as scorer" in without_scorer.missing[0]
    lone = replace(pairs, concept=replace(pairs.concept, replacements=()))
    assert "name replacements" in find_evaluators(sd_model, lone, chosen).missing[0]
    # A dimension of the concept's kind does not contain the concept, so CLIP could not choose it.
    kind = lone.concept.kind
    beside = replace(lone, dimensions={**lone.dimensions, kind: ("fox", "owl")})
    judge = find_evaluators(sd_model, beside, chosen).judge
    assert judge is not None
    assert kind not in judge.dimensions


def test_the_scorer_of_the_settings_gives_figures_to_any_model(unlearned: UnlearnedModel) -> None:
    settings = EvaluationSettings(3, GenerationSettings(steps=2), scorer=DEMO / "evaluation")
    report = evaluate(unlearned, settings)
    assert report.scorer == "evaluation"
    assert report.after.alignment_forget is not None
    assert report.after.concept_shown is not None
    assert report.intervals["alignment_forget"].low <= report.after.alignment_forget


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is not a folder with open_clip_config.json and open_clip_model.safetensors"),
        ({"open_clip_config.json": "{}"}, "is not a folder with"),
        (
            {"open_clip_config.json": "{", "open_clip_model.safetensors": ""},
            "not in open_clip's",
        ),
        (
            {"open_clip_config.json": "[]", "open_clip_model.safetensors": ""},
            "not in open_clip's",
        ),
        (
            {
                "open_clip_config.json": (
                    '{"model_cfg": {"vision_cfg": {}, "text_cfg": {"hf_model_name": "x/y"}}}'
                ),
                "open_clip_model.safetensors": "",
            },
            "needs 'x/y' from the network",
        ),
    ],
)
def test_a_folder_without_a_complete_clip_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"^scorer: .*{message}"):
        ClipScorer.load(tmp_path)


def test_neighbours_are_the_most_similar_quarter() -> None:
    words = ("far", "near", "nearest", "opposite", "never drawn")
    concept = replace(INK, replacements=words)
    pairs = [pair(word, "cat") for word in words[:4] for _ in range(2)] + [pair("xqz", "cat")]
    forget = torch.tensor([[1.0, 0.1], [1.0, -0.1]])
    angles = torch.tensor([1.2, 1.2, 0.4, 0.6, 0.1, 0.1, 3.0, 3.0, 0.0])
    retain = torch.stack([angles.cos(), angles.sin()], 1)
    assert nearest_words(concept, forget, retain, pairs) == ("nearest",)
    one = replace(INK, replacements=("far",))
    assert nearest_words(one, forget, retain, pairs) == ()
    assert nearest_words(replace(INK, replacements=()), forget, retain, pairs) == ()


def test_groups_list_the_worst_first_and_every_pair_once(scorer: ClipScorer) -> None:
    report = make_report(scorer=scorer)
    by_key = {group.key: group for group in groups(report)}
    assert list(by_key) == ["forget", "neighbours", "rest"]
    assert by_key["forget"].pairs[0].facts.shows_after
    assert {p.facts.replacement for p in by_key["neighbours"].pairs} == set(report.neighbours)
    assert sum(group.total for group in by_key.values()) == 12
    changes = [p.facts.change or 0 for p in by_key["rest"].pairs]
    assert changes == sorted(changes, reverse=True)
    unjudged = {group.key for group in groups(make_report())}
    assert unjudged == {"forget", "rest"}


# Probes of an evaluation


def test_the_settings_choose_the_probes(unlearned: UnlearnedModel) -> None:
    settings = EvaluationSettings(2, GenerationSettings(steps=2), DEMO / "evaluation", "wordings")
    progress = Recorder()
    report = evaluate(unlearned, settings, progress=progress)
    assert [probe.name for probe in report.probes] == list(REWORDINGS)
    assert progress.counts("probing") == [0, 1, 2, 3]
    assert progress.updates[-1] == ("probing", 3, 3)
    assert all(len(probe.prompts) == 2 and probe.after is not None for probe in report.probes)
    drawing = replace(settings.generation, seed=ProbeSettings().generation.seed)
    assert drawing != settings.generation, "the probes would repeat the evaluation's pictures"
    for probe in report.probes:
        expected = draw_pictures(unlearned.model, probe.prompts, drawing)
        assert torch.equal(probe.pictures, expected)
    text = summary(report)
    assert "Pictures with the concept, by probe: paraphrases" in text
    others = "full fine-tuning, adversarial search and image to image"
    assert f"Not tested: textual inversion, relearning from ten pictures, {others}." in text
    assert "paraphrases" in table(report)
    assert report_json(unlearned, report)["probes"]["paraphrases"]["interval"]


def test_thorough_probes_result_in_recovery_curves(
    unlearned: UnlearnedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = (
        FineTuning("relearning from ten pictures", 2, efforts=(1, 2)),
        ImageToImage("image to image, neutral prompt", neutral=True, efforts=(50,)),
    )
    monkeypatch.setitem(vars(probes)["ATTACKS"], "thorough", attacks)
    settings = EvaluationSettings(2, GenerationSettings(steps=2), DEMO / "evaluation", "thorough")
    report = evaluate(unlearned, settings)
    content = report_json(unlearned, report)
    training, images = content["recovery"]
    assert [point["effort"] for point in training["points"]] == [1, 2]
    assert training["points"][1]["label"] == "after 2 steps of training on 2 pictures"
    assert (images["unit"], images["pictures"]) == ("% noise", 2)
    (point,) = images["points"]
    assert {point["before"], point["after"]} <= {0, 1, 2}
    assert list(content["probes"]) == ["relearning from ten pictures"], "as of quick probes"
    text = summary(report)
    assert "Not tested: paraphrases, misspellings, long prompts, textual inversion, full" in text
    assert "image to image" not in text.partition("Not tested")[2]
    assert "relearning from ten pictures, 2 steps" in table(report)


def test_the_values_of_earlier_versions_keep_their_meaning() -> None:
    names = {value: [attack.name for attack in of] for value, of in probes.ATTACKS.items()}
    assert names["all"] == names["quick"] == list(probes.PROBES)
    assert names["wordings"] == list(REWORDINGS)
    for value in ("all", "wordings"):
        assert EvaluationSettings(probes=value).probes == value


def test_a_probe_that_runs_out_of_memory_does_not_affect_other_figures(
    class_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 36 GiB")

    monkeypatch.setattr("unlearn_core.judging.relearning.fine_tuned", out_of_memory)
    report = evaluate_class_model(class_folder)
    assert {probe.name for probe in report.probes} >= {"paraphrases"}
    assert any("ran out of memory: choose a smaller batch_size" in line for line in report.missing)


def test_an_unsupported_probe_is_reported_and_the_others_run(class_folder: Path) -> None:
    report = evaluate_class_model(class_folder)
    assert {"paraphrases"} <= {probe.name for probe in report.probes}
    assert "textual inversion" not in {probe.name for probe in report.probes}
    assert any("'textual inversion' was not possible" in line for line in report.missing)
    assert "'textual inversion' was not possible" in summary(report)


def test_an_error_in_a_probe_is_not_reported_as_unsupported(
    class_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr("unlearn_core.judging.relearning.fine_tuned", fault)
    with pytest.raises(ValueError, match="shapes do not match"):
        evaluate_class_model(class_folder)


def evaluate_class_model(class_folder: Path) -> AlignmentReport:
    """The report of all probes on a class-conditional model, which reads no prompts."""
    model = load_model(class_folder)
    pairs = diversify(
        ForgetConcept("cat", "class", (), ("dog", "house")),
        ["{wording} {concept}"],
        {"wording": ("a", "one")},
        train_count=2,
        test_count=2,
    )
    same = UnlearnedModel(model, model, pairs, UnlearnSettings(scope="full"), ())
    settings = EvaluationSettings(2, GenerationSettings(steps=2), DEMO / "evaluation", "all")
    return evaluate(same, settings)
