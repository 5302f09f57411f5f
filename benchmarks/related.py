"""Related works beside ours, on EmojiCanvas: ``python -m benchmarks.related``.

``docs/related.md`` describes the methods. Each has twice as many denoiser passes for training as
ours (see ``contest.py``), or is a closed-form edit. UCE runs once more, as the edit to compare the
others with. The records in ``benchmarks/results/related`` let the benchmark be interrupted and
resumed, and divided among processes (``--part 0/2``, ``--part 1/2``). ``--table`` prints the tables
of the runs so far.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contest import Baseline, Contest
from benchmarks.methods import UCE_WEIGHTS
from benchmarks.quality import SEEDS, TUNED_ON
from demo.jobs import EMOJI
from unlearn_core.models.layers import LORA_SELF_ATTENTION, XATTN

ANY_RATE = (1.0,)  # a closed-form edit has none
CONTEST = Contest(
    EMOJI,
    Path(__file__).parent / "results" / "related",
    TUNED_ON,
    baselines={
        "UCE": Baseline("UCE", (XATTN,), UCE_WEIGHTS, ANY_RATE),
        "SPEED": Baseline("SPEED", (XATTN,), (0.01, 0.05, 0.2, 1.0, 5.0), ANY_RATE),
        "after CASE": Baseline("after CASE", (XATTN,), (0.3, 0.5, 0.7, 0.8, 0.9, 0.95), ANY_RATE),
        "DUO": Baseline("DUO", (LORA_SELF_ATTENTION,), (2e2, 2e4)),
        "after I2I": Baseline("after I2I", (XATTN,), (1.0, 5.0)),
        "after epsilon-constrained": Baseline(
            "after epsilon-constrained", (XATTN,), (0.01, 0.05, 0.2)
        ),
    },
    budget=2880,
    seeds=SEEDS[:1],
)


if __name__ == "__main__":
    CONTEST.main("benchmarks.related", __doc__)
