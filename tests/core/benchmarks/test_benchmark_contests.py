"""The plan of the two contests, their budget of denoiser passes, and their tables."""

from __future__ import annotations

import functools
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import chance, equal_passes, flow, related
from benchmarks.contest import (
    CONCEPTS,
    Contest,
    automatic,
    passes_needed,
    passes_of_mask,
    passes_per_row,
)
from demo.jobs import EMOJI, FLOW, job_settings
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.recipes import OURS, RELATED
from unlearn_core.unlearning.settings import UnlearnSettings

from .benchmark_records import write

FLOW_CONTEST, EMOJI_CONTEST = flow.CONTEST, equal_passes.CONTEST
RELATED_CONTEST = related.CONTEST
TRAINED = [
    *((FLOW_CONTEST, method) for method in ("SalUn", "ESD", OURS)),
    *((EMOJI_CONTEST, method) for method in ("GradDiff", "MUNBa", "NPO", "fine-tune")),
    *((RELATED_CONTEST, method) for method in ("DUO", "after I2I")),
]


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    return replace(FLOW_CONTEST, results=tmp_path)


@functools.cache
def loaded(path: Path) -> ModelHandle:
    return load_model(path)


def first_settings(contest: Contest, method: str) -> UnlearnSettings:
    return automatic(contest.model) if method == OURS else contest.candidates(method)[0]


def tune(contest: Contest, method: str) -> None:
    while contest.search(method)[1] is None:
        for i, task in enumerate(contest.search(method)[0]):
            write(task, 0.9, 0.1 + i / 100)


@pytest.mark.parametrize(("contest", "method"), TRAINED)
def test_the_passes_of_a_step_are_those_of_a_record(contest: Contest, method: str) -> None:
    """A record also has the passes of an unused loss; they are subtracted in the table."""
    steps, batch, pairs = 2, 2, 3
    settings = replace(
        first_settings(contest, method),
        steps=steps,
        batch_size=batch,
        picture_pairs=pairs,
        picture_steps=1,
    )
    job = job_settings("rabbit", settings, contest.model)
    prompts = replace(job.prompts, train_count=pairs, test_count=2)
    pictures = replace(job, prompts=prompts).pairs()
    task = Task(loaded(contest.model), pictures, settings, GenerationSettings())
    cost = unlearn(task, Observer()).cost
    record = {"settings": asdict(settings), "cost": cost.as_json()}
    drawing = 2 * pairs * 2  # two pictures of a pair, one step, guidance
    rows = steps * batch
    expected = rows * passes_per_row(settings) + passes_of_mask(settings)
    assert passes_needed(record) == drawing + expected
    unused = {"ESD": 3, "fine-tune": 3}.get(method, 0)
    assert cost.passes["unlearning"] == expected + unused * rows


def test_every_baseline_has_the_same_budget_and_ours_less() -> None:
    ours, budget = automatic(FLOW), FLOW_CONTEST.budget
    assert budget is not None
    assert FLOW_CONTEST.pairs is not None
    assert ours.steps * ours.batch_size * passes_per_row(ours) <= budget / 2
    assert ours.picture_pairs < FLOW_CONTEST.pairs
    for method, steps in {"RGD": 60, "GradDiff": 60, "SalUn": 49, "ESD": 72}.items():
        settings = first_settings(FLOW_CONTEST, method)
        assert settings.steps == steps
        assert_within(budget, settings)
        assert settings.picture_pairs == FLOW_CONTEST.pairs, "drawing costs the same"


@pytest.mark.parametrize("method", EMOJI_CONTEST.baselines)
def test_at_equal_passes_every_baseline_has_as_many_as_ours(method: str) -> None:
    ours = automatic(EMOJI)
    budget = ours.steps * ours.batch_size * passes_per_row(ours)
    for settings in EMOJI_CONTEST.candidates(method):
        assert_within(budget, settings)
        assert (settings.picture_pairs, settings.picture_steps) == (
            ours.picture_pairs,
            ours.picture_steps,
        )


def test_related_works_have_at_most_twice_the_passes_of_ours(tmp_path: Path) -> None:
    contest, budget = replace(RELATED_CONTEST, results=tmp_path), RELATED_CONTEST.budget
    ours = automatic(EMOJI)
    assert budget is not None
    assert budget == 2 * ours.steps * ours.batch_size * passes_per_row(ours)
    assert set(contest.baselines) - {"UCE"} == set(RELATED)
    for method in contest.baselines:
        for settings in contest.candidates(method):
            assert_within(budget, settings)
        tune(contest, method)
        assert [task.seed for task in contest.scored_tasks(method)] == [0] * len(CONCEPTS)


def assert_within(budget: int, settings: UnlearnSettings) -> None:
    """One step more would exceed the budget."""
    step = settings.batch_size * passes_per_row(settings)
    assert budget - step < passes_of_mask(settings) + settings.steps * step <= budget


@pytest.mark.parametrize("method", FLOW_CONTEST.methods)
def test_no_two_runs_share_a_record(contest: Contest, method: str) -> None:
    tune(contest, method)
    tasks = [*contest.search(method)[0], *contest.scored_tasks(method)]
    assert len({task.record for task in tasks}) == len(tasks)
    assert len(contest.scored_tasks(method)) == 12
    assert {task.model for task in tasks} == {FLOW}
    assert not set(contest.tuned_on) & set(CONCEPTS)


def test_the_second_concept_is_only_for_the_best_two(contest: Contest) -> None:
    tasks, _ = contest.search("RGD")
    for i, task in enumerate(tasks):
        write(task, 0.9, 0.5 - i / 100)
    second = [task for task in contest.search("RGD")[0] if task.concept == contest.tuned_on[1]]
    assert [t.settings for t in second] == [t.settings for t in tasks[:-3:-1]]
    for task, distance in zip(second, (0.3, 0.2), strict=True):
        write(task, 0.9, distance)
    assert contest.search("RGD")[1] == second[1].settings


def test_a_finished_run_is_not_open(contest: Contest) -> None:
    tasks = contest.open_tasks([OURS])
    assert [task.concept for task in tasks[:4]] == list(CONCEPTS)
    write(tasks[0], 0.9, 0.1)
    assert contest.open_tasks([OURS]) == tasks[1:]


def test_the_table_compares_the_runs_so_far(contest: Contest) -> None:
    assert flow.table(contest).startswith("there is no record of ours")
    tune(contest, "GradDiff")
    shares = {OURS: (1.0, 0.5, 0.5), "GradDiff": (0.7, 0.8, 0.8)}
    for method, of_method in shares.items():
        for task, more in zip(contest.scored_tasks(method)[:2], (0.0, 0.1), strict=True):
            ua, ira, cra = of_method
            write(task, (ua, ira, cra - more), 0.2, drifts=(0.01, -0.004), passes=2880)
    text = flow.table(contest)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    assert rows["*before unlearning*"].startswith(
        "| *before unlearning* | | | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000 |"
    )
    assert rows[OURS].startswith(
        "| ours | 2 of 12 | lora, text path | 1.000 ± 0.000 | 0.500 ± 0.000 | 0.450 ± 0.071 |"
    )
    assert rows[OURS].endswith("| +0.010 ± 0.000 | -0.004 ± 0.000 | 0.200 ± 0.000 | 2,890 |")
    scope = contest.scored_tasks("GradDiff")[0].settings.scope
    assert rows["GradDiff"].startswith(f"| GradDiff | 2 of 12 | {scope} | 0.700 ± 0.000 |")
    difference = "+0.3000 (+0.3000 to +0.3000) | -0.3000 (-0.3000 to -0.3000)"
    assert rows["ours, less GradDiff"].startswith(f"| ours, less GradDiff | 2 | {difference} |")
    assert text.splitlines()[-1] == (
        "UA at least 0.98: yes; IRA and CRA within 0.02 of before: **no**; "
        "alignment, test within 0.005 of before: yes; harmonic mean above all others: **no**"
    )


def test_an_interval_is_that_of_student() -> None:
    """Differences 1, 2, 3: a mean of 2, a standard error of 0.577, and t of 4.303."""
    assert chance.interval([1.0, 2.0, 3.0], 2) == "+2.00 (-0.48 to +4.48)"
