"""Selection of the steps of a run that stay saved on disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

MOST_STEPS = 40
MOST_BYTES = 10 * 2**30  # three steps of Stable Diffusion 1.5 with the scope ``full``
SHARE_OF_DISK = 0.1  # of the disk space that would be free without the saved steps


def room_for(size: int, saved: int, folder: Path) -> int:
    """The number of steps that may stay saved; at least one if the disk has room for it.

    Args:
        size: bytes of one saved step.
        saved: number of steps saved now.
        folder: folder of the saved steps.
    """
    size = max(size, 1)
    free = shutil.disk_usage(folder).free + saved * size
    return min(MOST_STEPS, max(1, MOST_BYTES // size), int(SHARE_OF_DISK * free / size))


def spread_evenly(steps: Sequence[int], room: int, needed: int | None = None) -> list[int]:
    """At most ``room`` of the steps, spread evenly from the run's start to the newest.

    Args:
        steps: in ascending order; the last stays.
        needed: another step that stays.
    """
    remaining = list(steps)
    while len(remaining) > room:
        # The step whose removal leaves the smallest gap.
        gaps = [
            (after - before, step)
            for before, step, after in zip([0, *remaining], remaining, remaining[1:], strict=False)
            if step != needed
        ]
        if not gaps:
            break
        remaining.remove(min(gaps)[1])
    return remaining
