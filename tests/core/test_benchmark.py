"""What the quality benchmark concludes from its records; the runs themselves take hours."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quality, quality_report
from benchmarks.chance import verdict
from benchmarks.methods import ABLATIONS, METHODS, candidates
from unlearn_core.batches import TrainingSets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts import PromptPairs
from unlearn_core.settings import ProbeSettings, UnlearnSettings
from unlearn_core.settings_file import JobSettings

UCE = "UCE"


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    return tmp_path


def write(task: quality.Task, share: float, distance: float) -> None:
    names = ("unlearning_accuracy", "in_domain_retain", "cross_domain_retain")
    alignment = {"alignment": {"retain_train": 0.8, "retain_test": 0.8}}
    record = {
        "settings": asdict(task.settings),
        "concept": {"name": task.concept},
        "seed": task.seed,
        "before": alignment,
        "after": {**dict.fromkeys(names, share), "cross_domain_forget": share, **alignment},
        "retain_distance": distance,
        "rise_share": 0.0,
        "cpu_seconds": 1.0,
        "peak_bytes": 2**30,
        "probes": None,
    }
    task.record.write_text(json.dumps(record), encoding="utf-8")


def test_the_search_goes_on_with_those_as_good_as_the_best_and_takes_the_least_damage() -> None:
    first, second = quality.TUNED_ON
    tasks = quality.tuning_tasks(UCE)
    for task, share in zip(tasks, (0.99, 0.98, 0.975, 0.9, 0.5), strict=True):
        assert task.concept == first
        assert quality.tuned(UCE) is None, "the search is not complete"
        write(task, share, 0.1)
    others = [task for task in quality.tuning_tasks(UCE) if task.concept == second]
    assert sorted(t.settings.retain_weight for t in others) == [
        t.settings.retain_weight for t in tasks[:3]
    ]
    for task, share, distance in zip(others, (0.95, 0.94, 0.9), (0.5, 0.2, 0.0), strict=True):
        assert quality.tuned(UCE) is None
        write(task, share, distance)
    assert quality.tuned(UCE) == others[1].settings
    scored = quality.scored_tasks(UCE, ("ink",))
    assert [t.settings for t in scored] == [replace(others[1].settings, seed=s) for s in (0, 1, 2)]


def test_the_search_prefers_what_has_forgotten_enough() -> None:
    while quality.tuned(UCE) is None:
        for i, task in enumerate(quality.tuning_tasks(UCE)):
            share = {1.0: 0.99, 10.0: 0.975}.get(task.settings.retain_weight, 0.5)
            write(task, share, -0.1 * i)
    chosen = quality.tuned(UCE)
    assert chosen is not None
    assert chosen.retain_weight == 1, "0.975 did less damage, but left more"


def test_where_one_is_better_than_all_others_no_second_concept_is_asked() -> None:
    for i, task in enumerate(quality.tuning_tasks(UCE)):
        write(task, 0.9 - 0.1 * i, 0.1)
    tasks = quality.tuning_tasks(UCE)
    assert {task.concept for task in tasks} == set(quality.TUNED_ON[:1])
    assert quality.tuned(UCE) == tasks[0].settings


def test_a_record_of_other_settings_is_not_taken_for_this_run() -> None:
    task = quality.tuning_tasks(UCE)[0]
    write(task, 1.0, 0.0)
    assert quality.read(task) is not None
    assert quality.read(replace(task, settings=replace(task.settings, seed=1))) is None


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_searched_over_settings_of_its_own(method: str) -> None:
    if method in ABLATIONS:
        assert ABLATIONS[method] not in ABLATIONS
        return
    tasks = quality.tuning_tasks(method)
    assert len({task.name for task in tasks}) == len(tasks) == len(candidates(method)) >= 4
    assert not set(quality.TUNED_ON) & set(quality.TIERS["small"])


def test_a_run_leaves_the_figures_of_the_model_before_and_after(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one step that leaves nothing of the model: before, it draws what it is asked for."""
    prompts = {"train_count": 2, "test_count": 2, "seed": 0}
    whole = quality.job_settings

    def small(concept: str, unlearn: UnlearnSettings) -> JobSettings:
        settings = whole(concept, unlearn)
        return replace(settings, prompts=replace(settings.prompts, **prompts))

    seen: list[int] = []
    make = quality.make_training_sets

    def sets(model: ModelHandle, pairs: PromptPairs, *given: Any, **more: Any) -> TrainingSets:
        seen.append(len({pair.forget for pair in pairs.train}))
        return make(model, pairs, *given, **more)

    monkeypatch.setattr(quality, "job_settings", small)
    monkeypatch.setattr(quality, "make_training_sets", sets)
    monkeypatch.setattr(quality, "ROOM", tmp_path / "room")
    monkeypatch.setattr(quality, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(quality, "PROBES", {"paraphrases": None})
    monkeypatch.setattr(quality, "ProbeSettings", lambda: ProbeSettings(pictures=2))
    wrecked = UnlearnSettings(steps=1, learning_rate=1.0, batch_size=2)
    for diversified in (True, False):
        name = f"ink-{diversified}"
        task = quality.Task(name, "ink", 0, wrecked, 2, diversified, probed=diversified)
        quality.perform(task, "cpu")
        record = quality.read(task)
        assert record is not None
        before, after = record["before"], record["after"]
        assert before["unlearning_accuracy"] == 0
        assert after["unlearning_accuracy"] == 1
        assert before["in_domain_retain"] > 0.5 > after["in_domain_retain"]
        assert before["alignment"]["retain_test"] > after["alignment"]["retain_test"] + 0.1
        assert record["peak_bytes"] > record["cpu_seconds"] > 0
        assert record["seed"] == 0
        assert len(record["code"]) == 12
    assert seen == [2, 1], "not diversified: one pair of prompts, as many pictures"
    assert record["probes"] is None
    first = quality.read(quality.Task("ink-True", "ink", 0, wrecked, 2))
    assert first is not None
    assert first["probes"]["paraphrases"] == {"before": 1.0, "after": 0.0}


def score(method: str, concepts: tuple[str, ...], share: float) -> None:
    """A little less with each further seed: seeds differ, and so do all methods alike on each."""
    while quality.tuned(method) is None:
        for task in quality.tuning_tasks(method):
            write(task, share, 0.1)
    for task in quality.scored_tasks(method, concepts):
        write(task, share - 0.01 * task.seed, 0.1)


def test_ours_is_held_against_the_others_concept_by_concept() -> None:
    for method, share in (("ours", 1.0), (UCE, 0.9), ("RG (paper)", 0.7), ("GradDiff", 0.8)):
        score(method, quality.TIERS["small"], share)
    written = quality_report.bar()
    kept = " | ".join(["+0.0000 ± 0.0000 | no difference"] * 3)
    assert f"| ours, less UCE | 4 | 12 | +0.1000 ± 0.0000 | better | {kept} |" in written
    assert "| RG (paper), less GradDiff | 4 | 12 | -0.1000 ± 0.0000 | **worse** |" in written
    assert "| ink | 3 | 0.990 ± 0.010 | +0.000 ± 0.000 | +0.000 ± 0.000 | yes | yes |" in written
    assert "| *all* | 12 |" in written


def test_a_lower_distance_is_better() -> None:
    concepts = quality.TIERS["small"]
    for method, distance in (("ours", 0.1), (UCE, 0.2)):
        score(method, concepts, 0.9)
        for task in quality.scored_tasks(method, concepts):
            write(task, 0.9, distance)
    row = quality_report.duel("ours", UCE)
    assert row is not None
    assert row.endswith("| -0.1000 ± 0.0000 | better |")


def test_the_tiers_beyond_the_small_one_come_with_their_runs() -> None:
    for method in ("ours", UCE):
        score(method, quality.TIERS["small"], 0.9)
    assert quality_report.unseen_tier() == quality_report.full_tier() == ()
    for method in ("ours", UCE):
        score(method, quality.TIERS["unseen"][:2], 0.9)
    title, of_methods, of_pairs = quality_report.unseen_tier()
    assert all(concept in title for concept in quality.TIERS["unseen"])
    assert "| ours | 6 of 21 |" in of_methods
    assert "| ours, less UCE | 2 | 6 | +0.0000 ± 0.0000 | too few |" in of_pairs
    assert quality_report.full_tier() == ()
    score("ours", quality.TIERS["full"], 0.9)
    _, full = quality_report.full_tier()
    assert "| ours | 45 of 45 |" in full
    assert "| UCE | 18 of 45 |" in full


def test_what_the_model_never_drew_is_no_part_of_what_comes_back() -> None:
    concepts = quality.TIERS["small"]
    score("ours", concepts, 0.9)
    for i, task in enumerate(t for t in quality.scored_tasks("ours", concepts) if t.probed):
        record = json.loads(task.record.read_text())
        record["probes"] = {"misspellings": {"before": 0.5 if i else 0.0, "after": 0.25}}
        task.record.write_text(json.dumps(record))
    lines = quality_report.probe_table().splitlines()
    assert "| ours | 4 | 0.25 ± 0.00 (3) |" in lines
    assert "| *before unlearning* | 4 | 0.50 ± 0.00 (3) |" in lines


def test_the_rule_and_the_plain_sum_stand_side_by_side_at_equal_settings() -> None:
    for method, share in (("RG (paper)", 0.7), ("GradDiff", 0.8)):
        score(method, (), share)
    lines = quality_report.rule_table().splitlines()[2:]
    shared = {task.settings.learning_rate for task in quality.tuning_tasks("GradDiff")}
    assert len(lines) >= len(shared)
    assert all("| 0.700 | 0.800 | +0.000 | +0.000 | 0.100 | 0.100 |" in line for line in lines)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.1, 0.1], "too few"),
        ([0.1, 0.11, 0.09], "better"),
        ([-0.1, -0.11, -0.09], "**worse**"),
        ([0.1, -0.1, 0.05], "no difference"),
        # Of four concepts even 2.9 standard errors may be chance.
        ([0.03, 0.1, 0.1, 0.02], "no difference"),
        ([0.03, 0.1, 0.1, 0.02] * 3, "better"),
    ],
)
def test_a_difference_that_chance_may_make_is_none(gains: list[float], said: str) -> None:
    assert verdict(gains) == said
