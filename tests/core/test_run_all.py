"""The tests' own runner: what runs side by side, and on how many processors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from tests import run_all


@pytest.mark.parametrize("processors", [1, 2, 4])
def test_all_run_and_never_on_more_processors_than_there_are(processors: int) -> None:
    lock, busy, most, started = threading.Lock(), 0, 0, list[tuple[str, int]]()

    def task(name: str) -> Callable[[int], run_all.Outcome]:
        def run(count: int) -> run_all.Outcome:
            nonlocal busy, most
            with lock:
                started.append((name, count))
                busy += count
                most = max(most, busy)
            pause.wait(0.02)
            with lock:
                busy -= count
            return Counter(passed=count)

        return run

    pause = threading.Event()
    names = ["live", "checkpoints", "core", "nodes", "ruff"]
    outcomes = run_all.side_by_side({name: task(name) for name in names}, processors)
    assert list(outcomes) == names
    assert most == processors
    given = dict(started)
    assert 1 <= given.pop("core") <= processors
    assert set(given.values()) == {1}


def test_the_core_alone_has_all_processors() -> None:
    outcomes = run_all.side_by_side({"core": lambda count: Counter(passed=count)}, 4)
    assert outcomes == {"core": Counter(passed=4)}


def test_a_task_that_breaks_gives_its_processor_back() -> None:
    def broken(count: int) -> run_all.Outcome:
        raise OSError("no pytest")

    tasks = {"live": broken, "nodes": lambda count: "ok"}
    with pytest.raises(OSError, match="no pytest"):
        run_all.side_by_side(tasks, 1)
