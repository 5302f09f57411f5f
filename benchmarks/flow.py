"""The paper's Table 7 in small, on a flow-matching model: ``python -m benchmarks.flow``.

EmojiCanvas-Flow has the architecture of Stable Diffusion 3. Each baseline has more denoiser passes
than ours (see ``contest.py``). The records in ``benchmarks/results/flow`` let the benchmark be
interrupted and resumed, and divided among processes (``--part 0/2``, ``--part 1/2``). ``--table``
prints the tables of the runs so far.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.chance import spread
from benchmarks.contest import Baseline, Contest, Runs
from benchmarks.methods import UCE_WEIGHTS
from benchmarks.quality import FORGOTTEN
from benchmarks.records import COLUMNS, SUMMARY, before, by_concept
from demo.jobs import FLOW
from unlearn_core.job.console import say
from unlearn_core.models.layers import ATTENTION, FULL, TEXT_PATH
from unlearn_core.unlearning.recipes import OURS

GAP_OF_SHARES, GAP_OF_ALIGNMENT = 0.02, 0.005  # largest changes that the bar allows
CONTEST = Contest(
    FLOW,
    Path(__file__).parent / "results" / "flow",
    tuned_on=("pixel", "rabbit"),  # a style and an object
    # Scopes: that of the authors first, then the text path, the only scope in which the model
    # forgot anything in a trial. In an order that ``--part`` divides into two halves of about the
    # same duration.
    baselines={
        "RGD": Baseline("RGD (paper)", (FULL, TEXT_PATH), (1.0, 5.0)),
        "GradDiff": Baseline("GradDiff", (FULL, TEXT_PATH), (1.0, 5.0)),
        "SalUn": Baseline("SalUn", (FULL, TEXT_PATH), (0.1, 1.0)),
        "ESD": Baseline("ESD-x", (ATTENTION, TEXT_PATH), (0.0,)),
        "UCE": Baseline("UCE", (TEXT_PATH,), UCE_WEIGHTS, (1.0,)),  # the rate has no effect
    },
    budget=2880,  # twice as many passes as ours
    pairs=32,  # 1.4 times as many pictures
)


def table(contest: Contest = CONTEST) -> str:
    """The contest's tables, and the bar."""
    runs = contest.records()
    return "\n\n".join((contest.table(), _bar(runs))) if OURS in runs else contest.table()


def _bar(runs: dict[str, Runs]) -> str:
    """Whether ours, as a mean over the concepts, meets the bar that was set beforehand."""
    after = {
        method: {
            name: spread(by_concept(list(of_method.values()), COLUMNS[name])).mean
            for name in SUMMARY
        }
        for method, of_method in runs.items()
    }
    ours = after.pop(OURS)
    changes = [
        ours[name] - spread(by_concept(list(runs[OURS].values()), before(COLUMNS[name]))).mean
        for name in ("IRA", "CRA")
    ]
    mean = "harmonic mean"
    met = {
        f"UA at least {FORGOTTEN}": ours["UA"] >= FORGOTTEN,
        f"IRA and CRA within {GAP_OF_SHARES} of before": max(map(abs, changes)) <= GAP_OF_SHARES,
        f"alignment, test within {GAP_OF_ALIGNMENT} of before": (
            abs(ours["alignment, test"]) <= GAP_OF_ALIGNMENT
        ),
        f"{mean} above all others": all(ours[mean] > other[mean] for other in after.values()),
    }
    return "; ".join(f"{name}: {'yes' if value else '**no**'}" for name, value in met.items())


def main() -> None:
    options = CONTEST.parser("benchmarks.flow", __doc__).parse_args()
    if options.table:
        say(table())
    else:
        CONTEST.run(options)


if __name__ == "__main__":
    main()
