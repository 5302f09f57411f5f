"""What the quality benchmark concludes from its records; the runs themselves take hours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.methods import ABLATIONS, METHODS, candidates
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.job import engine
from unlearn_core.job.settings_file import JobSettings
from unlearn_core.judging.settings import ProbeSettings
from unlearn_core.unlearning.settings import UnlearnSettings

from .benchmark_records import tune, write

UCE = "UCE"


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    return tmp_path


def test_the_search_goes_on_with_those_as_good_as_the_best_and_takes_the_least_damage() -> None:
    first, second = quality.TUNED_ON
    tasks = quality.tuning_tasks(UCE)
    for task, share in zip(tasks, (0.99, 0.98, 0.975, 0.9, 0.5, 0.5), strict=True):
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


def rewritten(task: quality.Task, without: str) -> None:
    """The task's record as it was before a setting existed."""
    record = json.loads(task.record.read_text(encoding="utf-8"))
    del record["settings"][without]
    task.record.write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(("weight", "of_this_run"), [(1.0, True), (4.0, False)])
def test_an_old_record_is_of_the_values_that_were_in_effect_then(
    weight: float, of_this_run: bool
) -> None:
    """The first edit weighed retained prompts by 1 before there was a setting, 4 by default."""
    task = quality.tuning_tasks("ours")[0]
    task = replace(task, settings=replace(task.settings, warm_start_weight=weight))
    write(task, 1.0, 0.0)
    rewritten(task, "warm_start_weight")
    assert (quality.read(task) is not None) is of_this_run
    cold = replace(task, settings=replace(task.settings, warm_start=False))
    write(cold, 1.0, 0.0)
    rewritten(cold, "warm_start_weight")
    assert quality.read(cold) is not None, "without the edit its weight has no effect"


def test_a_record_older_than_an_unknown_setting_is_refused() -> None:
    task = quality.tuning_tasks(UCE)[0]
    write(task, 1.0, 0.0)
    rewritten(task, "npo_beta")
    with pytest.raises(ValueError, match="^npo_beta: a record .* add to BEFORE"):
        quality.read(task)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_searched_over_settings_of_its_own(method: str) -> None:
    if method in ABLATIONS:
        assert ABLATIONS[method] not in ABLATIONS
        return
    tasks = quality.tuning_tasks(method)
    assert len({task.name for task in tasks}) == len(tasks) == len(candidates(method)) >= 4
    assert not set(quality.TUNED_ON) & set(quality.TIERS["small"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_same_budget(method: str) -> None:
    tune(ABLATIONS.get(method, method))
    tasks = quality.scored_tasks(method, quality.TIERS["small"])
    assert len(tasks) == 4 * len(quality.seeds_of(method))
    if method not in ABLATIONS:
        tasks += quality.tuning_tasks(method)
    budget = quality.THOROUGH
    assert {task.settings.steps for task in tasks} == {budget.steps}
    assert {task.settings.batch_size for task in tasks} == {budget.batch_size}
    scopes = {"ESD-u": "noxattn", "ESD-u, 2025": "noxattn-2025"}
    assert {task.settings.scope for task in tasks} == {scopes.get(method, "xattn")}


def run_main(monkeypatch: pytest.MonkeyPatch, *given: str, fails: str = "") -> list[str]:
    """The tasks that ``main`` starts, each in a process of its own which leaves a record."""
    started: list[str] = []

    def call(command: list[str]) -> int:
        name = command[command.index("--task") + 1]
        started.append(name)
        if name == fails:
            return 1
        (task,) = [t for t in quality.open_tasks(list(METHODS), ("ink", "cat")) if t.name == name]
        write(task, 0.9, 0.1)
        return 0

    monkeypatch.setattr(quality.subprocess, "call", call)
    argv = ["quality", "--concepts", "ink", "cat", *given]
    monkeypatch.setattr(quality.sys, "argv", argv)
    quality.main()
    return started


def test_two_parts_make_every_run_once_and_a_second_start_makes_none(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("--methods", UCE, "ESD-x", "UCE, weight 4", "fine-tune")
    parts = [run_main(monkeypatch, *methods, "--part", f"{i}/2") for i in (0, 1)]
    started = [*parts[0], *parts[1]]
    assert all(parts)
    assert len(set(started)) == len(started)
    assert {f"{name}.json" for name in started} == {file.name for file in results.iterdir()}
    assert {"ink-uce-0", "cat-uce-weight-4-0", "cat-fine-tune-1", "ink-esd-x-2"} <= set(started)
    assert not any(run_main(monkeypatch, *methods, "--part", f"{i}/2") for i in (0, 1))
    (results / "cat-uce-1.json").unlink()
    assert run_main(monkeypatch, *methods) == ["cat-uce-1"]


def test_a_run_that_fails_is_told_and_does_not_stop_the_others(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="failed: ink-uce-1"):
        run_main(monkeypatch, "--methods", UCE, fails="ink-uce-1")
    made = {file.stem for file in results.glob("*-uce-?.json")}
    assert made == {f"{concept}-uce-{seed}" for concept in ("ink", "cat") for seed in range(3)} - {
        "ink-uce-1"
    }


def test_a_run_leaves_the_figures_of_the_model_before_and_after(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one step that leaves nothing of the model: before, it draws what it is asked for. With a
    retain weight of 0, such a step is not undone."""
    prompts = {"train_count": 2, "test_count": 2, "seed": 0}
    whole = quality.job_settings

    def small(concept: str, unlearn: UnlearnSettings, model: Path) -> JobSettings:
        settings = whole(concept, unlearn, model)
        return replace(settings, prompts=replace(settings.prompts, **prompts))

    seen: list[int] = []
    draw = quality.training_sets

    def sets(task: engine.Task, cache: LatentCache) -> TrainingSets:
        seen.append(len({pair.forget for pair in task.training_pairs.train}))
        return draw(task, cache)

    monkeypatch.setattr(quality, "job_settings", small)
    monkeypatch.setattr(quality, "training_sets", sets)
    monkeypatch.setattr(quality, "ROOM", tmp_path / "room")
    monkeypatch.setattr(quality, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(quality, "PROBES", {"paraphrases": None})
    monkeypatch.setattr(quality, "ProbeSettings", lambda: ProbeSettings(pictures=2))
    wrecked = UnlearnSettings(
        scope="xattn",
        steps=1,
        learning_rate=1.0,
        retain_weight=0.0,
        batch_size=2,
        picture_pairs=2,
        picture_steps=12,
    )
    for diversified in (True, False):
        name = f"ink-{diversified}"
        settings = replace(wrecked, diversified=diversified)
        task = quality.Task(name, "ink", 0, settings, 2, probed=diversified)
        quality.perform(task, "cpu")
        record = quality.read(task)
        assert record is not None
        before, after = record["before"], record["after"]
        assert before["unlearning_accuracy"] == 0
        assert after["unlearning_accuracy"] == 1
        assert before["in_domain_retain"] > 0.5 > after["in_domain_retain"]
        assert before["alignment"]["retain_test"] > after["alignment"]["retain_test"] + 0.1
        assert record["peak_bytes"] > record["cpu_seconds"] > 0
        assert record["rise_share"] == 0, "the step is restricted"
        file = tmp_path / "room" / task.model.name / name / "report.json"
        report = json.loads(file.read_text("utf-8"))
        assert record["conflict_share"] == report["steps"][0]["conflict"]
        assert record["seed"] == 0
        assert len(record["code"]) == 12
    assert seen == [2, 1], "not diversified: one pair of prompts, as many pictures"
    assert record["probes"] is None
    first = quality.read(quality.Task("ink-True", "ink", 0, wrecked, 2))
    assert first is not None
    assert first["probes"]["paraphrases"] == {"before": 1.0, "after": 0.0}
