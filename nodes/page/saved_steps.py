"""How many steps of a run stay saved on disk, and which."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

MOST_STEPS = 40
MOST_BYTES = 10 * 2**30  # three steps of Stable Diffusion 1.5 trained in full
SHARE_OF_DISK = 0.1  # of what would be free without them


def room_for(size: int, held: int, folder: Path) -> int:
    """How many steps may stay saved; at least one where the disk has room for it.

    Args:
        size: of one saved step, in bytes.
        held: how many are saved now.
        folder: where they are.
    """
    size = max(size, 1)
    free = shutil.disk_usage(folder).free + held * size
    return min(MOST_STEPS, max(1, MOST_BYTES // size), int(SHARE_OF_DISK * free / size))


def thinned(steps: Sequence[int], room: int, needed: int | None = None) -> list[int]:
    """At most ``room`` of the steps, spread evenly from the run's start to the newest.

    Args:
        steps: in ascending order; the last stays.
        needed: a step that stays, too.
    """
    left = list(steps)
    while len(left) > room:
        # The step whose removal leaves the smallest gap.
        gaps = [
            (after - before, step)
            for before, step, after in zip([0, *left], left, left[1:], strict=False)
            if step != needed
        ]
        if not gaps:
            break
        left.remove(min(gaps)[1])
    return left
