"""The benchmark of the automatic learning rate: its runs and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rates
from benchmarks.quality import Task

from .benchmark_records import write


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rates, "RESULTS", tmp_path)
    return tmp_path


def all_tasks(model: str) -> dict[float, list[Task]]:
    settings = rates.automatic_settings(model)
    return {factor: rates.tasks(model, factor, settings) for factor in rates.FACTORS}


@pytest.mark.parametrize("model", ["emoji", "digits", "flow"])
def test_each_run_has_its_own_rate_and_record(model: str) -> None:
    tasks = all_tasks(model)
    every = [task for of_factor in tasks.values() for task in of_factor]
    assert len({task.record for task in every}) == 2 * 2 * 5
    automatic = tasks[1.0][0].settings.learning_rate
    for factor, of_factor in tasks.items():
        rate = of_factor[0].settings.learning_rate
        assert rate == pytest.approx(factor * automatic, rel=0.01)


def test_the_table_compares_the_automatic_rate_with_the_best(results: Path) -> None:
    tasks = all_tasks("emoji")
    for factor, of_factor in tasks.items():
        for task in of_factor:
            write(task, 0.99 if factor == 2 else 0.96, 0.1)
    assert rates.table().splitlines()[2:] == [
        "| emoji | 0.00093 | 0.960, 0.960 | 0.960, 0.960 | 0.960, 0.960 | 0.990, 0.990 "
        "| 0.960, 0.960 | **no** |"
    ]
    for task in tasks[1.0]:
        write(task, 0.975, 0.1)
    assert rates.table().endswith("| yes |")
    tasks[0.25][0].record.unlink()
    assert len(rates.table().splitlines()) == 2, "a model appears once all its runs are there"
