"""Which steps of a run stay saved."""

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
    thinned = pack_module("nodes.page.saved_steps").thinned
    kept: list[int] = []
    for step in range(1, total + 1):
        kept = thinned([*kept, step], room)
        assert len(kept) == min(room, step)
        assert kept[-1] == step, "the newest stays"
        gaps = [after - before for before, after in zip([0, *kept], kept, strict=False)]
        assert max(gaps) <= max(1, 2 * -(-step // room)), "no part of the run is out of reach"


def test_a_needed_step_stays() -> None:
    thinned = pack_module("nodes.page.saved_steps").thinned
    assert thinned([1, 2, 3, 4], 2, needed=1) == [1, 4]
    assert thinned([3, 4], 1, needed=3) == [3, 4]


@pytest.mark.parametrize(
    ("size", "held", "free", "room"),
    [
        (SD15_IN_FULL, 0, 1000 * GIB, 3),
        (SD15_IN_FULL, 0, 50 * GIB, 1),
        (SD15_IN_FULL, 0, 20 * GIB, 0),
        (12 * GIB, 0, 1000 * GIB, 1),  # larger than all may be together, but one is let through
        (1000, 0, GIB, 40),
        (GIB, 0, 40 * GIB, 4),
        (GIB, 4, 36 * GIB, 4),  # what is saved already is no reason to save fewer
        (0, 0, GIB, 40),
    ],
)
def test_room(
    size: int, held: int, free: int, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert pack_module("nodes.page.saved_steps").room_for(size, held, tmp_path) == room
