"""All methods with the denoiser passes of the automatic settings:
``python -m benchmarks.equal_passes``.

The main benchmark compares the methods at the same number of steps, in our thorough form, with 13
times as many passes. Here each baseline has as many as ours needs by itself, for drawing and for
training, and a search at this number. The records in ``benchmarks/results/equal_passes`` let the
benchmark be interrupted and resumed, and divided among processes (``--part 0/2``, ``--part 1/2``).
``--table`` prints the tables of the runs so far.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contest import Baseline, Contest
from benchmarks.methods import UCE_WEIGHTS
from benchmarks.quality import TUNED_ON
from demo.jobs import EMOJI
from unlearn_core.models.layers import NOXATTN, XATTN

CONTEST = Contest(
    EMOJI,
    Path(__file__).parent / "results" / "equal_passes",
    TUNED_ON,
    baselines={
        "RGD (paper)": Baseline("RGD (paper)", (XATTN,), (1.0, 5.0)),
        "GradDiff": Baseline("GradDiff", (XATTN,), (1.0, 5.0)),
        "MUNBa": Baseline("MUNBa", (XATTN,), (1.0, 5.0)),
        "NPO": Baseline("NPO", (XATTN,), (1.0, 5.0)),
        "SalUn": Baseline("SalUn", (XATTN,), (0.1, 1.0)),
        "ESD-x": Baseline("ESD-x", (XATTN,), (0.0,)),
        "ESD-u": Baseline("ESD-u", (NOXATTN,), (0.0,)),
        "UCE": Baseline("UCE", (XATTN,), UCE_WEIGHTS, (1.0,)),  # the rate has no effect
        "gradient ascent": Baseline("gradient ascent", (XATTN,), (0.0,)),
        "fine-tune": Baseline("fine-tune", (XATTN,), (0.0,)),
    },
)


if __name__ == "__main__":
    CONTEST.main("benchmarks.equal_passes", __doc__)
