"""The progress object."""

from __future__ import annotations

import time

import pytest

from unlearn_core.foundation.progress import Progress

from ..watching import Recorder, StopError, Stopping


def test_a_phase_counts_its_ticks_and_seconds() -> None:
    progress = Recorder()
    with progress.phase("drawing", 3):
        progress.tick()
        progress.tick(2, note="almost done")
        assert progress.note == "almost done"
    with progress.phase("saving", 1):
        assert progress.note == ""
        time.sleep(0.01)
    expected = [("drawing", 0, 3), ("drawing", 1, 3), ("drawing", 3, 3), ("saving", 0, 1)]
    assert progress.updates == expected
    assert progress.seconds["saving"] >= 0.01 > progress.seconds["drawing"]


def test_the_seconds_of_a_phase_are_added_up_even_if_it_fails() -> None:
    progress = Progress()

    def fails() -> None:
        with progress.phase("saving", 1):
            time.sleep(0.01)
            raise ValueError("full")

    for _ in range(2):
        with pytest.raises(ValueError, match="full"):
            fails()
    assert progress.seconds["saving"] >= 0.02


def test_a_part_is_ticked_after_its_use() -> None:
    progress = Recorder()
    with progress.phase("reading", 2):
        for part in progress.ticking("ab"):
            assert progress.done == "ab".index(part)
    assert progress.counts("reading") == [0, 1, 2]


def test_silent_progress_shows_nothing_and_stops_like_the_outer() -> None:
    progress = Stopping(3)
    with progress.phase("probing", 1):  # the first check
        inner = progress.silent()
        with inner.phase("drawing", 9), pytest.raises(StopError):  # the second
            inner.tick()
    assert progress.updates == [("probing", 0, 1)]
    assert progress.seconds.keys() == {"probing"}
