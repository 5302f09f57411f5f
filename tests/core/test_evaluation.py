"""The evaluation's counting, against cases worked out by hand, and what people are told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearn_core.batches import TrainingSets
from unlearn_core.concepts import ForgetConcept
from unlearn_core.evaluation import AlignmentReport, Comparison, Metrics, evaluate
from unlearn_core.evaluation.evaluate import Evaluators, measure
from unlearn_core.evaluation.judge import ConvJudge
from unlearn_core.evaluation.pictures import before_after, comparison_grid, loss_chart
from unlearn_core.evaluation.report import report_json, summary, table
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts import PromptPair
from unlearn_core.settings import EvaluationSettings, GenerationSettings, UnlearnSettings
from unlearn_core.unlearn import UnlearnedModel, Unlearning

INK = ForgetConcept("ink", "style", (), ("noto", "pixel"))


class ReadsPixels:
    """A judge of pictures that say what they show: pixel (0, 0, 0) holds an index of ``shows``."""

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
    return torch.tensor(indices).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255


def pair(replacement: str, thing: str) -> PromptPair:
    return PromptPair(f"ink {thing}", f"{replacement} {thing}", replacement, {"object": thing})


def measured() -> Metrics:
    judge = ReadsPixels([("ink", "cat"), ("noto", "cat"), ("pixel", "dog"), (None, None)])
    test, train = [pair("noto", "cat"), pair("pixel", "dog")] * 2, [pair("noto", "cat")] * 4
    groups = {"forget": test, "retain train": train, "retain test": test}
    shown = {
        "forget": pictures(0, 1, 3, 2),  # ink cat; noto cat for a dog; nothing; pixel dog
        "retain train": pictures(1, 1, 1, 0),  # three right; ink instead of noto
        "retain test": pictures(1, 2, 3, 1),  # right, right, nothing, noto cat for pixel dog
    }
    prompts = {
        name: [p.forget if name == "forget" else p.retain for p in group]
        for name, group in groups.items()
    }
    return measure(INK, groups, shown, prompts, Evaluators(None, judge))


def test_shares_are_counted_as_defined() -> None:
    metrics = measured()
    assert metrics.concept_shown == 1
    assert metrics.unlearning_accuracy == 3 / 4
    assert metrics.in_domain_retain == 5 / 8
    assert metrics.cross_domain_retain == 6 / 8
    assert metrics.cross_domain_forget == 2 / 4
    assert metrics.alignment_forget is None


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
        assert 0 <= comparison.before.min() <= comparison.after.max() <= 1


def test_an_unchanged_model_scores_the_same_after(
    unlearned: UnlearnedModel,
) -> None:
    same = UnlearnedModel(
        unlearned.base, unlearned.base, unlearned.pairs, unlearned.settings, unlearned.reports
    )
    settings = EvaluationSettings(pictures=2, generation=GenerationSettings(steps=2))
    totals: list[tuple[int, int]] = []
    report = evaluate(same, settings, on_picture=lambda *progress: totals.append(progress))
    assert report.before == report.after
    assert totals[-1] == (12, 12)
    assert [done for done, _ in totals] == sorted(done for done, _ in totals)
    comparison = report.comparisons["forget"]
    assert torch.equal(comparison.before, comparison.after)


def test_report_is_json_and_words_claim_only_what_was_tested(
    unlearned: UnlearnedModel, report: AlignmentReport
) -> None:
    content = report_json(unlearned, report, {"unlearning": 1.234})
    assert json.loads(json.dumps(content, allow_nan=False)).keys() == content.keys()
    assert content["seconds"] == {"unlearning": 1.23}
    assert "look at the pictures" in summary(report)
    judged = AlignmentReport(INK, measured(), measured(), report.comparisons, 0.0)
    assert "'ink' shows in 1 of 4 pictures" in summary(judged)
    assert "0.750" in table(judged)
    assert "removed" not in summary(judged) + table(judged)


def test_pictures_hold_every_prompt(report: AlignmentReport, unlearned: UnlearnedModel) -> None:
    comparison: Comparison = report.comparisons["forget"]
    one = before_after(comparison.prompts[:1], comparison.before[:1], comparison.after[:1])
    three = before_after(comparison.prompts, comparison.before, comparison.after)
    assert three.width > 2 * one.width
    assert comparison_grid(report).height > 3 * three.height
    assert loss_chart(unlearned.reports).width > 500


def test_judge_survives_saving(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = ConvJudge({"style": ("noto", "ink")}, 16).eval()
    judge.save(tmp_path)
    again = ConvJudge.load(tmp_path)
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(judge(images)["style"], again(images)["style"], rtol=0.02, atol=0.02)
    assert again.dimensions == judge.dimensions
