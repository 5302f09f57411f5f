"""The test runner: it runs every test file, and its tasks in parallel."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from .. import run_all


@pytest.mark.parametrize("processors", [1, 2, 4])
def test_all_tasks_run_in_parallel(processors: int) -> None:
    lock, busy, peak, pause = threading.Lock(), 0, 0, threading.Event()

    def task(name: str) -> Callable[[], run_all.Outcome]:
        def run() -> run_all.Outcome:
            nonlocal busy, peak
            with lock:
                busy += 1
                peak = max(peak, busy)
            pause.wait(0.02)
            with lock:
                busy -= 1
            return name

        return run

    names = ["live", "checkpoints", "core", "nodes", "ruff"]
    outcomes = run_all.side_by_side({name: task(name) for name in names}, processors)
    assert outcomes == {name: name for name in names}
    assert peak == processors


def test_a_task_that_fails_does_not_stop_the_others() -> None:
    finished = threading.Event()

    def fail() -> run_all.Outcome:
        raise OSError("no pytest")

    def succeed() -> run_all.Outcome:
        finished.set()
        return Counter(passed=1)

    with pytest.raises(OSError, match="no pytest"):
        run_all.side_by_side({"live": fail, "nodes": succeed}, 1)
    assert finished.is_set()


def test_every_test_file_is_in_one_tier() -> None:
    places = [
        run_all.ROOT / place for tier in (run_all.TIERS | run_all.LARGE).values() for place in tier
    ]
    for file in (run_all.ROOT / "tests").rglob("test_*.py"):
        assert sum(file.is_relative_to(place) for place in places) == 1, file
