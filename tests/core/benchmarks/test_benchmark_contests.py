"""The plan of the flow benchmark, its budget of denoiser passes, and its tables."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import chance, flow
from demo.jobs import FLOW, job_settings
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.job.engine import Observer, Task, unlearn
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.recipes import OURS
from unlearn_core.unlearning.settings import UnlearnSettings

from .benchmark_records import write

TRAINED = ("RGD", "GradDiff", "SalUn", "ESD", OURS)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(flow, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model() -> ModelHandle:
    return load_model(FLOW)


def first_settings(method: str) -> UnlearnSettings:
    return flow.automatic() if method == OURS else flow.candidates(method)[0]


def tune(method: str) -> None:
    while flow.search(method)[1] is None:
        for i, task in enumerate(flow.search(method)[0]):
            write(task, 0.9, 0.1 + i / 100)


@pytest.mark.parametrize("method", TRAINED)
def test_the_passes_of_a_step_are_those_of_a_record(method: str, model: ModelHandle) -> None:
    """A record of ESD has three more per row; they are subtracted in the table."""
    steps, batch, pairs = 2, 2, 3
    settings = replace(
        first_settings(method), steps=steps, batch_size=batch, picture_pairs=pairs, picture_steps=1
    )
    job = job_settings("rabbit", settings, FLOW)
    prompts = replace(job.prompts, train_count=pairs, test_count=2)
    task = Task(model, replace(job, prompts=prompts).pairs(), settings, GenerationSettings())
    cost = unlearn(task, Observer()).cost
    record = {"settings": asdict(settings), "cost": cost.as_json()}
    drawing = 2 * pairs * 2  # two pictures of a pair, one step, guidance
    rows = steps * batch
    expected = rows * flow.passes_per_row(settings) + flow.passes_of_mask(settings)
    assert flow.passes_needed(record) == drawing + expected
    assert cost.passes["unlearning"] == expected + (3 * rows if method == "ESD" else 0)


def test_every_baseline_has_the_same_budget_and_ours_less() -> None:
    ours = flow.automatic()
    assert ours.steps * ours.batch_size * flow.passes_per_row(ours) <= flow.BUDGET / 2
    assert ours.picture_pairs < flow.PAIRS
    for method, steps in {"RGD": 60, "GradDiff": 60, "SalUn": 49, "ESD": 72}.items():
        settings = first_settings(method)
        step = settings.batch_size * flow.passes_per_row(settings)
        passes = flow.passes_of_mask(settings) + settings.steps * step
        assert settings.steps == steps
        assert flow.BUDGET - step < passes <= flow.BUDGET
        assert settings.picture_pairs == flow.PAIRS, "drawing costs the same"


@pytest.mark.parametrize("method", flow.METHODS)
def test_no_two_runs_share_a_record(method: str) -> None:
    tune(method)
    tasks = [*flow.search(method)[0], *flow.scored_tasks(method)]
    assert len({task.record for task in tasks}) == len(tasks)
    assert len(flow.scored_tasks(method)) == 12
    assert {task.model for task in tasks} == {FLOW}
    assert not set(flow.TUNED_ON) & set(flow.CONCEPTS)


def test_the_second_concept_is_only_for_the_best_two() -> None:
    tasks, _ = flow.search("RGD")
    for i, task in enumerate(tasks):
        write(task, 0.9, 0.5 - i / 100)
    second = [task for task in flow.search("RGD")[0] if task.concept == flow.TUNED_ON[1]]
    assert [t.settings for t in second] == [t.settings for t in tasks[:-3:-1]]
    for task, distance in zip(second, (0.3, 0.2), strict=True):
        write(task, 0.9, distance)
    assert flow.search("RGD")[1] == second[1].settings


def test_a_finished_run_is_not_open() -> None:
    tasks = flow.open_tasks([OURS])
    assert [task.concept for task in tasks[:4]] == list(flow.CONCEPTS)
    write(tasks[0], 0.9, 0.1)
    assert flow.open_tasks([OURS]) == tasks[1:]


def test_the_table_compares_the_runs_so_far() -> None:
    assert flow.table().startswith("there is no record of ours")
    tune("GradDiff")
    shares = {OURS: (1.0, 0.5, 0.5), "GradDiff": (0.7, 0.8, 0.8)}
    for method, of_method in shares.items():
        for task, more in zip(flow.scored_tasks(method)[:2], (0.0, 0.1), strict=True):
            ua, ira, cra = of_method
            write(task, (ua, ira, cra - more), 0.2, drifts=(0.01, -0.004), passes=2880)
    text = flow.table()
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    assert rows["*before unlearning*"].startswith(
        "| *before unlearning* | | | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000 |"
    )
    assert rows[OURS].startswith(
        "| ours | 2 of 12 | lora, text path | 1.000 ± 0.000 | 0.500 ± 0.000 | 0.450 ± 0.071 |"
    )
    assert rows[OURS].endswith("| +0.010 ± 0.000 | -0.004 ± 0.000 | 0.200 ± 0.000 | 2,890 |")
    scope = flow.scored_tasks("GradDiff")[0].settings.scope
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
