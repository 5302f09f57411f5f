"""The test runner: which tasks run in parallel, and on how many processors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from .. import run_all


@pytest.mark.parametrize("processors", [1, 2, 4])
def test_all_tasks_run_within_the_number_of_processors(processors: int) -> None:
    lock, busy, peak, starts = threading.Lock(), 0, 0, list[tuple[str, int]]()

    def task(name: str) -> Callable[[int], run_all.Outcome]:
        def run(count: int) -> run_all.Outcome:
            nonlocal busy, peak
            with lock:
                starts.append((name, count))
                busy += count
                peak = max(peak, busy)
            pause.wait(0.02)
            with lock:
                busy -= count
            return Counter(passed=count)

        return run

    pause = threading.Event()
    names = ["live", "checkpoints", "core", "nodes", "ruff"]
    outcomes = run_all.side_by_side({name: task(name) for name in names}, processors)
    assert list(outcomes) == names
    assert peak == processors
    counts = dict(starts)
    assert 1 <= counts.pop("core") <= processors
    assert set(counts.values()) == {1}


def test_the_core_gets_all_processors_if_it_runs_alone() -> None:
    outcomes = run_all.side_by_side({"core": lambda count: Counter(passed=count)}, 4)
    assert outcomes == {"core": Counter(passed=4)}


def test_a_failed_task_releases_its_processor() -> None:
    def fail(count: int) -> run_all.Outcome:
        raise OSError("no pytest")

    tasks = {"live": fail, "nodes": lambda count: "ok"}
    with pytest.raises(OSError, match="no pytest"):
        run_all.side_by_side(tasks, 1)
