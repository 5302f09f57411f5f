"""Selection of the steps of a run that stay saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ..pack import pack_module

GIB = 2**30
SD15_IN_FULL = 3_438_000_000  # bytes of a step: 860 million weights in fp32


@pytest.mark.parametrize("room", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("total", [1, 7, 100, 333])
def test_saved_steps_are_spread_over_the_run(room: int, total: int) -> None:
    spread_evenly = pack_module("nodes.page.saved_steps").spread_evenly
    saved: list[int] = []
    for step in range(1, total + 1):
        saved = spread_evenly([*saved, step], room)
        assert len(saved) == min(room, step)
        assert saved[-1] == step, "the newest stays"
        gaps = [after - before for before, after in zip([0, *saved], saved, strict=False)]
        assert max(gaps) <= max(1, 2 * -(-step // room)), "no part of the run is missing"


def test_a_needed_step_stays() -> None:
    spread_evenly = pack_module("nodes.page.saved_steps").spread_evenly
    assert spread_evenly([1, 2, 3, 4], 2, needed=1) == [1, 4]
    assert spread_evenly([3, 4], 1, needed=3) == [3, 4]


@pytest.mark.parametrize(
    ("size", "saved", "free", "room"),
    [
        (SD15_IN_FULL, 0, 1000 * GIB, 3),
        (SD15_IN_FULL, 0, 50 * GIB, 1),
        (SD15_IN_FULL, 0, 20 * GIB, 0),
        (12 * GIB, 0, 1000 * GIB, 1),  # larger than the limit for all, but one is allowed
        (1000, 0, GIB, 40),
        (GIB, 0, 40 * GIB, 4),
        (GIB, 4, 36 * GIB, 4),  # steps saved already do not reduce the number
        (0, 0, GIB, 40),
    ],
)
def test_room(
    size: int, saved: int, free: int, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert pack_module("nodes.page.saved_steps").room_for(size, saved, tmp_path) == room
